"""Rewriters: what restates its instruction is said again without the restatement."""
