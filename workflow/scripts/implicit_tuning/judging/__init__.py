"""Judges and the one door to AlpacaEval's pairwise evaluation: `compare` and its `Comparison`.

The two names are fetched when they are asked for, so that importing the package loads nothing.
Modules of this project import them from `judging.alpaca`: the keys of nodes are read off import
statements, and would not see what lies behind this door.
"""

from importlib import import_module

__all__ = ["Comparison", "compare"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.alpaca"), name)
