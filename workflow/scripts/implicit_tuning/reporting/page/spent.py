"""What an experiment cost: time and memory by stage, and the money that paid endpoints took."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

# Facts of a manifest under which the identity of an endpoint's questions stands.
IDENTITIES = ("judge_id", "rewriter_id")
PAID_KINDS = frozenset({"openai"})


@dataclass(frozen=True)
class Cost:
    """What one judge or rewriter has cost over all experiments of these results, in USD.

    `usd` is None where no ledger was kept.
    """

    name: str
    usd: float | None


def paid_calls(manifests: Iterable[Mapping], spending: Path) -> list[Cost]:
    """Costs of the endpoints that an experiment's nodes asked, by name; empty for none.

    `spending` is the folder of the ledgers (see `judging.ledger`).

    Raises:
        ValueError: a ledger is damaged.
    """
    asked = {
        str(manifest["facts"][fact])
        for manifest in manifests
        for fact in IDENTITIES
        if fact in manifest["facts"] and _is_paid(manifest["settings"])
    }
    return [Cost(name, _spent(spending / f"{name}.json")) for name in sorted(asked)]


def _is_paid(settings: Mapping) -> bool:
    entries = [value for value in settings.values() if isinstance(value, Mapping)]
    return any(entry.get("kind") in PAID_KINDS for entry in entries)


def _spent(ledger: Path) -> float | None:
    if not ledger.is_file():
        return None
    try:
        return float(json.loads(ledger.read_text(encoding="utf-8"))["spent_usd"])
    except (ValueError, LookupError, TypeError):
        raise ValueError(
            f"{ledger} is damaged, so the report cannot say what {ledger.stem} cost: put "
            '{"open": {}, "spent_usd": <what the endpoint has billed>} there'
        ) from None


def duration(seconds: float) -> str:
    """Seconds as people say them: "8.2 s", "3 min 05 s", "2 h 07 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
