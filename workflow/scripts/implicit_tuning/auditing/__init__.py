"""Auditing a checkpoint: does it follow instructions that it was not finetuned for?"""
