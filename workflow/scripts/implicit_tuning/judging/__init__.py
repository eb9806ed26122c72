"""Judges and the one door to AlpacaEval's pairwise evaluation."""
