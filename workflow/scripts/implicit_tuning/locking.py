"""Pinning what a config takes from the hub, in config/lock.yaml."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from implicit_tuning.lock import (
    LockError,
    lock_name,
    resolve_dataset,
    resolve_model,
    write_pins,
)
from implicit_tuning.pins import Pin
from implicit_tuning.plan import Plan

LOCK_FILE = Path("config", "lock.yaml")


@dataclass(frozen=True)
class HubSource:
    """An entry of a config that names a data set or a model of the hub.

    Attributes:
        key: where it stands in the config ("datasets.lima").
        entry: the whole entry, with `hub` in it.
    """

    key: str
    kind: Literal["datasets", "models"]
    entry: Mapping

    @property
    def revision(self) -> str:
        """Branch, tag or commit."""
        return self.entry["hub"].get("revision", "main")

    @property
    def lock_name(self) -> str:
        """Its name in the lock file."""
        return lock_name(self.kind, self.entry["hub"]["repo"], self.revision)

    def is_locked(self, lock: Mapping[str, Pin]) -> bool:
        """Whether the lock file knows all that is taken of it."""
        pin, hub = lock.get(self.lock_name), self.entry["hub"]
        if pin is None or self.kind == "models":
            return pin is not None
        file = pin.files.get(hub["file"])
        streamed = hub.get("streamed", False)
        return file is not None and streamed == (file.first_rows is not None)

    def look_up(self) -> Pin:
        """Ask the hub what it is.

        Raises:
            LockError, HubFailed: as `resolve_dataset` and `resolve_model`.
        """
        hub, entry = self.entry["hub"], self.entry
        if self.kind == "models":
            return resolve_model(hub["repo"], self.revision)
        streamed = hub.get("streamed", False)
        return resolve_dataset(
            hub["repo"], self.revision, hub["file"], entry["formatter"], entry["rows"], streamed
        )


def hub_sources(plan: Plan) -> list[HubSource]:
    """The entries of the hub that a plan uses, in the order of the config."""
    return list(_hub_sources(plan))


def _hub_sources(plan: Plan) -> Iterator[HubSource]:
    config = plan.config
    for node in plan.stage("download"):
        name = node.levels[0]
        if "hub" in config.datasets[name]:
            yield HubSource(f"datasets.{name}", "datasets", config.datasets[name])
    used = {
        "bases": config.bases,
        "adaptations": config.adaptations,
        "judges": {config.judge: config.judges[config.judge]},
        "embeddings": {n: e for n, e in config.embeddings.items() if n == config.embedding},
    }
    for section, entries in used.items():
        for name, entry in entries.items():
            if "hub" in entry:
                yield HubSource(f"{section}.{name}", "models", entry)


def lock_missing(plan: Plan, file: Path = LOCK_FILE) -> dict[str, Pin]:
    """Look up every entry of the hub that is not locked yet; each is written as soon as it is known.

    Returns:
        What was added, by its name in the lock file.

    Raises:
        LockError: an entry cannot be looked up; names it. What was locked before it stays.
    """
    from implicit_tuning.hub import HubFailed

    missing = [source for source in hub_sources(plan) if not source.is_locked(plan.config.lock)]
    added = {}
    for source in tqdm(missing, desc="lock", unit="source"):
        try:
            pin = source.look_up()
        except (LockError, HubFailed) as error:
            raise LockError(f"{source.key}: {error}") from None
        write_pins(file, {source.lock_name: pin})
        added[source.lock_name] = pin
    return added
