"""Instruction following without instruction tuning: the parts of the workflow that can be reused."""
