"""Engines that decode answers: one file an engine, `<name>_engine.py`, with `open_engine`."""
