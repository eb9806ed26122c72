"""What a judge is: the values that pass between AlpacaEval's annotator and our own judges."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

Status = Literal["ok", "judge_failed", "parse_failed"]


class Pair(NamedTuple):
    """Two outputs for one instruction, in the order in which the judge is to see them."""

    instruction: str
    output_1: str
    output_2: str


class JudgingFailed(RuntimeError):
    """Pairs stayed without a verdict; the good verdicts are in the cache, where there is one."""


@dataclass(frozen=True)
class Verdict:
    """A judge's answer about one pair.

    `preference` is AlpacaEval's number: 1 when `output_1` is better, 2 when `output_2` is, 1.5 for
    a draw, anything between for a weighted verdict, None when there is none. Then `status` says
    whether the judge gave no answer (`judge_failed`) or one that could not be read
    (`parse_failed`). `logprobs` are the log-probabilities behind the verdict by label, for the pair
    as the judge saw it. `n_cut` counts the outputs of the pair (0 to 2) that were shortened to fit.
    `reason` tells people why there is no verdict, if the judge knows; nothing is decided by it.

    Raises ValueError for a preference outside 1..2 or one that contradicts the status.
    """

    preference: float | None
    status: Status = "ok"
    logprobs: Mapping[str, float | None] | None = None
    n_cut: int = 0
    reason: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if (self.preference is None) != (self.status != "ok"):
            raise ValueError(
                f"verdict with preference {self.preference} and status {self.status!r}: "
                "a preference goes with 'ok', None with 'judge_failed' or 'parse_failed'"
            )
        if self.preference is not None and not 1 <= self.preference <= 2:
            raise ValueError(
                f"preference {self.preference} of a verdict must lie between 1 and 2 "
                "(1: output_1 is better, 2: output_2 is better)"
            )


@runtime_checkable
class Judge(Protocol):
    """Compares outputs. `judge_id` names it by content: equal ids give equal verdicts."""

    judge_id: str

    def judge(self, pairs: Sequence[Pair]) -> Sequence[Verdict]:
        """Returns one verdict a pair, in the order of the pairs."""
        ...


@dataclass(frozen=True)
class Needs:
    """What some kinds need beside their settings, each asked for by those alone.

    `chat` has the opening tags of the experiment's chat format, by role; `spending` is the folder
    for ledgers of paid judges.
    """

    truths: Callable[[], Mapping[str, Mapping]]
    model: Callable[[], Path]
    chat: Mapping[str, Any]
    spending: Path


def verdicts_of(judge: Judge, pairs: Sequence[Pair]) -> Iterator[tuple[Pair, Verdict]]:
    """Yields each pair with its verdict, once, as they come in.

    A judge whose verdicts come in one by one has `stream(pairs)`, which yields them so, in any
    order; any other answers all at once.

    Raises JudgingFailed when the judge answers fewer pairs, or more, than it was given.
    """
    if hasattr(judge, "stream"):
        yield from judge.stream(pairs)
        return
    verdicts = judge.judge(pairs) if pairs else []
    if len(verdicts) != len(pairs):
        raise JudgingFailed(
            f"judge {judge.judge_id} returned {len(verdicts)} verdicts for {len(pairs)} pairs"
        )
    yield from zip(pairs, verdicts, strict=True)
