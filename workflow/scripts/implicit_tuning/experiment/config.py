"""One experiment as its config describes it, and the words that every reader of it needs."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from implicit_tuning.remote.lockfile import Pin


class ConfigError(ValueError):
    """The config cannot be run; the message lists every problem."""

    def __init__(self, problems: list[str]) -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"config: {count}", *(f"  - {line}" for line in problems)]))
        self.problems = problems


@dataclass(frozen=True)
class Config:
    """One experiment; the fields are the top-level keys of config.yaml, where they are explained.

    `bases`, `adaptations`, `datasets`, `judges` and `embeddings` have their paths made absolute. `lock` is what
    config/lock.yaml says of hub sources.
    """

    experiment: str
    label: str
    seeds: tuple[int, ...]
    bases: Mapping[str, Mapping]
    reference: str
    evaluation: str
    judge: str
    adaptations: Mapping[str, Mapping]
    chat: Mapping[str, Any]
    training: Mapping[str, Any]
    generation: Mapping[str, Any]
    rules: Mapping[str, Any]
    judges: Mapping[str, Mapping]
    datasets: Mapping[str, Mapping]
    runtime: Mapping[str, Any]
    pretrain_base: str = "shipped"
    epochs: str = "fixed"
    epoch_selection: Mapping | None = None
    ranking: Mapping | None = None
    embedding: str | None = None
    embeddings: Mapping[str, Mapping] = field(default_factory=dict)
    ablations: Mapping[str, Mapping] = field(default_factory=dict)
    rewriters: Mapping[str, Mapping] = field(default_factory=dict)
    hardware: Mapping[str, Any] | None = None
    audit: Mapping[str, Any] | None = None
    lock: Mapping[str, Pin] = field(default_factory=dict)

    def adapted(self, base: str) -> list[str]:
        """The adaptations that a base is given: all whose row does not name other bases."""
        return [n for n, row in self.adaptations.items() if base in row.get("bases", self.bases)]


def merge(below: Mapping, above: Mapping) -> dict:
    """Nested mappings merged key by key; values of `above` win."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


SOURCES = ("hub", "url", "path", "organism")


def suggest(wrong: object, known: Mapping | list | tuple) -> str:
    """The closest known name, or all of them."""
    if not known:
        return "there is none: add it first"
    close = difflib.get_close_matches(str(wrong), list(known), n=1)
    return f"did you mean '{close[0]}'?" if close else f"known are: {', '.join(sorted(known))}"


def without_own_epochs(config: "Config") -> list[str]:
    """The finetuned adaptations that have no `training.epochs` of their own."""
    return [
        name
        for name, adaptation in config.adaptations.items()
        if adaptation["kind"] == "finetune" and "epochs" not in adaptation.get("training", {})
    ]


def sweep_name(adaptation: str, epochs: int) -> str:
    """Name of an adaptation's run in the sweep over epochs."""
    return f"{adaptation}.{epochs}-epochs"
