"""A file of verdicts, so that a comparison that stopped asks its judge only for the rest.

One file a comparison, JSON Lines, entries by content. Only good verdicts are kept: a failed one is
asked for again. Lines are only ever appended, each in one write, so two processes that judge the
same comparison at once both end well; a line that a crash tore is passed over with a warning.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

from implicit_tuning.digests import append_lines
from implicit_tuning.judging.judge import Pair, Verdict

logger = logging.getLogger(__name__)


def entry_key(judge_id: str, pair: Pair) -> str:
    """Returns the sha256 of judge and pair, in the order in which the judge saw the outputs."""
    return hashlib.sha256(json.dumps([judge_id, *pair]).encode()).hexdigest()


class VerdictCache:
    """Verdicts by key, read from `path` if it exists; with path None they live in memory only."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._verdicts: dict[str, Verdict] = {}
        if path is not None and path.exists():
            self._verdicts = _read(path)

    def get(self, key: str) -> Verdict | None:
        return self._verdicts.get(key)

    def add(self, verdicts: Mapping[str, Verdict]) -> None:
        """Stores the good ones of `verdicts`; on disk when this returns."""
        good = {key: verdict for key, verdict in verdicts.items() if verdict.status == "ok"}
        self._verdicts.update(good)
        if self._path is not None and good:
            append_lines(self._path, "".join(_line(key, good[key]) for key in good))


def _line(key: str, verdict: Verdict) -> str:
    entry = {
        "key": key,
        "logprobs": verdict.logprobs,
        "n_cut": verdict.n_cut,
        "preference": verdict.preference,
    }
    return json.dumps(entry, sort_keys=True) + "\n"


def _read(path: Path) -> dict[str, Verdict]:
    verdicts = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            entry = json.loads(line)
            verdict = Verdict(entry["preference"], "ok", entry["logprobs"], entry["n_cut"])
            verdicts[entry["key"]] = verdict
        except (ValueError, KeyError, TypeError):
            logger.warning("%s:%d is not a verdict; its pair is judged again", path, number)
    return verdicts
