"""Pinning what a config takes from the hub, in config/lock.yaml."""

from pathlib import Path

from tqdm import tqdm

from implicit_tuning.lock import LockError, lock_name, resolve_dataset, resolve_model, write_pins
from implicit_tuning.pins import Pin
from implicit_tuning.plan import Plan
from implicit_tuning.preflight.sources import Source, sources_of

LOCK_FILE = Path("config", "lock.yaml")


def lock_missing(plan: Plan, file: Path = LOCK_FILE) -> dict[str, Pin]:
    """Look up every entry of the hub that is not locked yet; each is written as soon as it is known.

    Returns:
        What was added, by its name in the lock file.

    Raises:
        LockError: an entry cannot be looked up; names it. What was locked before it stays.
    """
    from implicit_tuning.hub import HubFailed

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


def _look_up(source: Source) -> tuple[str, Pin]:
    """What the hub says that an entry is, and its name in the lock file."""
    hub, entry = source.entry["hub"], source.entry
    repo, revision = hub["repo"], hub.get("revision", "main")
    if source.node.stage == "fetch":
        return lock_name("models", repo, revision), resolve_model(repo, revision)
    streamed = hub.get("streamed", False)
    asked = (hub["file"], entry["formatter"], entry.get("rows"), streamed)
    return lock_name("datasets", repo, revision), resolve_dataset(repo, revision, *asked)
