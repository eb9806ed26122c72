"""A file of what one judge has cost, so that its cap holds over all that a results folder judges.

    {"open": {"node1.4711.1f0c2a9b": 0.031}, "spent_usd": 12.25}

`open` has, by call, the most that each call under way can cost. What a killed process promised
stays there and counts as spent: nobody knows whether the endpoint has billed it.
"""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from implicit_tuning.nodes.files import unique_suffix, write_atomically
from implicit_tuning.remote.failures import CostCapReached, UnusableLedger

# The lock is held for one small write; whoever waits for it answers no call meanwhile.
LOCK_POLL_S = 0.005


class Ledger:
    """What all comparisons, runs and processes have spent and promised under one judge.

    Its methods raise UnusableLedger, which names the file and what to do.

    The file `path` is made by the first promise. All of them together must not pass `max_usd`.
    """

    def __init__(self, path: Path, max_usd: float) -> None:
        self.path = path
        self.max_usd = max_usd
        self._own: set[str] = set()
        self._was_there = False

    def committed_usd(self) -> float:
        """Returns what is spent, and promised by calls under way."""
        with self._locked():
            spent, promised = self._read()
        return spent + sum(promised.values())

    def promise(self, usd: float) -> str | None:
        """Sets aside the most that a call can cost, and returns the call's id.

        Returns None while calls promised here hold the money: it is free again if they cost less.

        Raises CostCapReached when the call could pass the cap whatever those cost.
        """
        with self._locked():
            spent, promised = self._read()
            others = sum(promised[call] for call in promised.keys() - self._own)
            if spent + others + usd > self.max_usd:
                raise self._cap_reached(spent, others, usd)
            if spent + sum(promised.values()) + usd > self.max_usd:
                return None
            call = unique_suffix()
            self._write(spent, {**promised, call: usd})
        self._own.add(call)
        return call

    def settle(self, call: str, usd: float) -> None:
        """Ends a call that has cost so much."""
        with self._locked():
            spent, promised = self._read()
            del promised[call]
            self._write(spent + usd, promised)
        self._own.remove(call)

    def _cap_reached(self, spent: float, others: float, usd: float) -> CostCapReached:
        promised = f" and {others:.4f} promised by other or killed runs" if others else ""
        return CostCapReached(
            f"spent {spent:.4f} USD{promised} of max_usd {self.max_usd:g}, and the next call may "
            f"cost {usd:.4f}; all that this judge has cost is in {self.path}: raise max_usd to "
            "go on"
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.path}.lock", poll_interval=LOCK_POLL_S):
                yield
        except OSError as error:
            raise UnusableLedger(
                f"{self.path} cannot be read or written ({error}): no call is made under max_usd "
                "while nobody can note its cost"
            ) from None

    def _read(self) -> tuple[float, dict[str, float]]:
        """What is spent, and what is promised by call."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            spent, promised = content["spent_usd"], dict(content["open"])
            well_formed = all(_is_money(usd) for usd in (spent, *promised.values()))
            self._was_there = True
        except FileNotFoundError:
            spent, promised, well_formed = 0.0, {}, not self._was_there
        except (ValueError, LookupError, TypeError):
            well_formed = False
        if not well_formed or not self._own <= promised.keys():
            raise UnusableLedger(
                f"{self.path} is damaged or was removed, so nobody knows what this judge has "
                'cost: put {"open": {}, "spent_usd": <what the endpoint has billed>} there'
            )
        return spent, promised

    def _write(self, spent: float, promised: Mapping[str, float]) -> None:
        content = {"open": promised, "spent_usd": spent}
        write_atomically(self.path, json.dumps(content, indent=1, sort_keys=True) + "\n")
        self._was_there = True


def _is_money(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0
