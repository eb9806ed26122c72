"""`lock`: pin what a config takes from the hub, in config/lock.yaml."""

import argparse
from pathlib import Path

from tqdm import tqdm

from implicit_tuning.commands.lock.lookup import resolve_dataset, resolve_model
from implicit_tuning.commands.planned import planned
from implicit_tuning.experiment.plan import Plan
from implicit_tuning.experiment.preflight.sources import RemoteSource, sources_of
from implicit_tuning.remote.lockfile import LockError, Pin, lock_name, write_pins

LOCK_FILE = Path("config", "lock.yaml")


def run(arguments: argparse.Namespace) -> int:
    """Lock what the config lacks, and print each entry."""
    made, _ = planned(arguments)
    if not print_locked(made):
        print("nothing to lock: config/lock.yaml has every hub entry of this config")
    return 0


def print_locked(plan: Plan) -> int:
    """Lock what is not locked yet, and print it; returns how many entries that were."""
    added = lock_missing(plan)
    for name, pin in added.items():
        size = sum(file.size for file in pin.files.values())
        print(f"{name}: {pin.commit}, {len(pin.files)} files, {size / 1e6:.1f} MB")
    if added:
        print(f"{LOCK_FILE}: {len(added)} entries added")
    return len(added)


def lock_missing(plan: Plan, file: Path = LOCK_FILE) -> dict[str, Pin]:
    """Look up every entry of the hub that is not locked yet; each is written as soon as it is known.

    Returns:
        What was added, by its name in the lock file.

    Raises:
        LockError: an entry cannot be looked up; names it. What was locked before it stays.
    """
    from implicit_tuning.remote.hub import HubFailed

    sources = sources_of(plan.nodes.values(), plan.config)
    missing = [source for source in sources if source.is_hub and not source.is_locked]
    added = {}
    for source in tqdm(missing, desc="lock", unit="source", disable=not missing):
        try:
            name, pin = _look_up(source)
        except (LockError, HubFailed) as error:
            raise LockError(f"{source.key}: {error}") from None
        write_pins(file, {name: pin})
        added[name] = pin
    return added


def _look_up(source: RemoteSource) -> tuple[str, Pin]:
    """What the hub says that an entry is, and its name in the lock file."""
    hub, entry = source.entry["hub"], source.entry
    repo, revision = hub["repo"], hub.get("revision", "main")
    if source.node.stage == "fetch":
        return lock_name("models", repo, revision), resolve_model(repo, revision)
    streamed = hub.get("streamed", False)
    asked = (hub["file"], entry["formatter"], entry.get("rows"), streamed)
    return lock_name("datasets", repo, revision), resolve_dataset(repo, revision, *asked)
