"""Data sets, one module each: upstream rows become messages or evaluation items."""
