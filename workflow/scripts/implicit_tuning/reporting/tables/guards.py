"""Guards: what each costs its run on the run's task and off it, and what it changes there."""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from implicit_tuning.analysis.statistics import (
    SeedMean,
    mean_score,
    paired_difference,
    sign_flip_test,
)
from implicit_tuning.data import formatters
from implicit_tuning.data.reading import read_rows
from implicit_tuning.generation.guards.replacing import REFUSED
from implicit_tuning.reporting.tables.comparisons import (
    RATE_WORDS,
    ComparisonResult,
    Group,
    paired_with,
    read_groups,
    tested,
    with_judge,
)
from implicit_tuning.reporting.tables.layout import Table, counted, measured
from implicit_tuning.reporting.tables.similarity import SimilarityRuns, embedded_by, read_runs

# In the order of rows: a set of the task's own, and the two parts of the evaluation set.
REGIONS = ("task", "near", "far")


@dataclass(frozen=True)
class Side:
    """A run with or without its guard; all arrays are [seeds, instructions], in percent.

    Attributes:
        scores: of the verdicts, NaN where there is none.
        marked: whether the response carries the task's mark, NaN for a task without one.
        refused, cut: whether it is the guard's refusal; whether it was cut at its longest.
    """

    scores: np.ndarray
    marked: np.ndarray
    refused: np.ndarray
    cut: np.ndarray

    def among(self, chosen: np.ndarray) -> "Side":
        """The same of some instructions."""
        return Side(
            self.scores[:, chosen],
            self.marked[:, chosen],
            self.refused[:, chosen],
            self.cut[:, chosen],
        )


# With the guard and without it, by judge, base and guard, and region.
Pairs = dict[tuple[Group, str], tuple[Side, Side]]


def build(
    inputs: Mapping[str, Path],
    label: str,
    adaptations: Sequence[str],
    guards: Mapping[str, Mapping[str, Any]],
    evaluation: str,
    embedding: str,
    reference: str,
    references: Mapping[str, str] = {},
    judge_is_truth: bool = True,
) -> Table:
    """The table: a row for each base, guard and region.

    `difference` is the win rate with the guard less that without, in percentage points, paired by
    instruction and seed. `refused` and `cut` are percentages of the guarded responses, `marked` and
    `unguarded_marked` of the responses with and without the guard; empty for a task that has no
    mark. A region without instructions has n = 0 and empty cells; guards without a set of their
    task's own have no region "task".

    Args:
        inputs: data folders by the names of their nodes: comparisons ("judge/...") and answers
            ("generate/...") of the guards and of the runs that they guard, and the "similarity/..."
            of these; under "calibration" the judge's calibration.json, if there is one.
        guards: of each guard the adaptation `of`, its `kind`, the `formatter` of the task, and the
            `evaluation` set of the task, None for none.
        evaluation: the set that all adaptations answer.

    Raises:
        ValueError: a guard without the run that it guards, or without that run's similarity.
    """
    runs = read_runs(_of_stage(inputs, "similarity"), adaptations)
    groups, calibration = read_groups(_judged(inputs, evaluation), adaptations)
    pairs = dict(_pairs(inputs, adaptations, guards, evaluation, runs))
    tests = tested("difference", _p_values(pairs))
    rows = [
        _row(group, guards[group[2]], region, *pairs[group, region])
        | {"against": references.get(guards[group[2]]["of"], reference)}
        | tests.get((group, region), {})
        for group in groups
        for region in REGIONS
        if (group, region) in pairs
    ]
    label = with_judge(label, groups, judge_is_truth, calibration)
    frame = pd.DataFrame(rows).astype({"difference_p": float, "n_comparisons": "Int64"})
    return Table(frame, _caption(label, embedded_by(runs, embedding), len(tests)))


# --- reading ------------------------------------------------------------------------------------


def _of_stage(inputs: Mapping[str, Path], stage: str) -> dict[str, Path]:
    """The inputs of one stage by the levels of their nodes."""
    found = {name.partition("/")[::2]: folder for name, folder in inputs.items()}
    return {levels: folder for (other, levels), folder in found.items() if other == stage}


def _judged(inputs: Mapping[str, Path], evaluation: str) -> dict[str, Path]:
    """The comparisons on one evaluation set, and the calibration of the judge, if there is one."""
    found = {
        name: folder
        for name, folder in _of_stage(inputs, "judge").items()
        if name.split("/")[3] == evaluation
    }
    return found | {k: folder for k, folder in inputs.items() if k == "calibration"}


def _pairs(
    inputs: Mapping[str, Path],
    adaptations: Sequence[str],
    guards: Mapping[str, Mapping[str, Any]],
    evaluation: str,
    runs: Sequence[SimilarityRuns],
) -> Iterator[tuple[tuple[Group, str], tuple[Side, Side]]]:
    """With and without each guard, by region."""
    nearness = {(run.base, run.adaptation): run for run in runs}
    for asked in dict.fromkeys([evaluation, *(g["evaluation"] for g in guards.values())]):
        if asked is None:
            continue
        groups, _ = read_groups(_judged(inputs, asked), adaptations)
        for group in groups:
            guard = guards.get(group[2])
            if guard is None or asked not in (evaluation, guard["evaluation"]):
                continue
            unguarded = paired_with(groups, group, guard["of"])
            own, other = (
                _side(side, inputs, asked, guard["formatter"])
                for side in (groups[group], unguarded)
            )
            if asked != evaluation:
                yield (group, "task"), (own, other)
                continue
            near = _near(nearness, group[1], guard["of"])
            yield (group, "near"), (own.among(near), other.among(near))
            yield (group, "far"), (own.among(~near), other.among(~near))


def _near(
    nearness: Mapping[tuple[str, str], SimilarityRuns], base: str, adaptation: str
) -> np.ndarray:
    """Which instructions are near a run's task, [instructions], by index."""
    run = nearness.get((base, adaptation))
    if run is None:
        raise ValueError(f"base {base!r} has no similarity of {adaptation!r} to tell near from far")
    return run.near[np.argsort(run.lines[0]["index"].to_numpy(), kind="stable")]


def _side(
    comparisons: Sequence[ComparisonResult],
    inputs: Mapping[str, Path],
    evaluation: str,
    formatter: str,
) -> Side:
    """One side, its instructions by index."""
    module = importlib.import_module(f"{formatters.__name__}.{formatter}")
    by_seed = []
    for run in comparisons:
        seed = "none" if run.seed is None else str(run.seed)
        folder = inputs[f"generate/{run.base}/{run.adaptation}/{seed}/{evaluation}"]
        by_seed.append(_measures(run, folder, module))
    return Side(*(100 * np.array(by_seed, dtype=float)).swapaxes(0, 1))


def _measures(run: ComparisonResult, answers: Path, module: ModuleType) -> list[list]:
    """The fields of a `Side`, from 0 to 1, of one seed."""
    has_mark = getattr(module, "has_mark", lambda response: None)
    outputs = {row["index"]: row for row in read_rows(answers / "outputs.jsonl")}
    verdicts = {row["index"]: row["preference"] for row in run.annotations}
    order = sorted(verdicts)
    return [
        [None if verdicts[index] is None else verdicts[index] - 1 for index in order],
        [has_mark(outputs[index]["output"]) for index in order],
        [outputs[index]["finish"] == REFUSED for index in order],
        [outputs[index]["finish"] == "length" for index in order],
    ]


# --- rows ---------------------------------------------------------------------------------------


def _p_values(pairs: Pairs) -> dict[tuple[Group, str], float]:
    """Of each region that has instructions: does the guard change the win rate?"""
    return {
        key: sign_flip_test(guarded.scores - unguarded.scores)
        for key, (guarded, unguarded) in pairs.items()
        if guarded.scores.size
    }


def _row(
    group: Group,
    guard: Mapping[str, str | None],
    region: str,
    guarded: Side,
    unguarded: Side,
) -> dict[str, Any]:
    some = bool(guarded.scores.size)
    change = paired_difference(guarded.scores, unguarded.scores) if some else None
    return {
        "base": group[1],
        "adaptation": group[2],
        "of": guard["of"],
        "guard": guard["kind"],
        "region": region,
        **measured("difference", change),
        "difference_p": None,
        "difference_p_holm": None,
        "n_comparisons": None,
        **measured("win_rate", _mean(guarded.scores)),
        **measured("unguarded_win_rate", _mean(unguarded.scores)),
        **measured("refused", _mean(guarded.refused)),
        **measured("cut", _mean(guarded.cut)),
        **measured("marked", _mean(guarded.marked)),
        **measured("unguarded_marked", _mean(unguarded.marked)),
        "n": int(guarded.scores.size),
        "n_seeds": len(guarded.scores),
        "judge": group[0],
    }


def _mean(scores: np.ndarray) -> SeedMean | None:
    return None if np.isnan(scores).all() else mean_score(scores)


def _caption(label: str, embedded: str, n_tests: int) -> str:
    return (
        f"**{label or 'Guards'}.** What a guard costs the run `of` which it keeps to its task. `task` "
        "are instructions of a set of the task's own. Of the evaluation set, `near` are the "
        "instructions at least as similar to the task's training instructions as all but the most "
        "distant 5 % of those are to each other, `far` all others. `difference`: win rate with the "
        "guard less that without it, in points, paired by seed and instruction; both are against the "
        "run of the same base and seed that `against` names. Its p is that of a two-sided permutation "
        "test by signs over instructions, in parentheses corrected for the "
        f"{counted(n_tests, 'comparison')} of this table (Holm). In % of the responses: `refused` are "
        "the guard's refusal, `cut` ended at their longest, which a grammar does not accept, `marked` "
        "and `unguarded_marked` carry the task's mark with and without the guard. A refusal is judged "
        "like any answer, and so loses where an answer was wanted. "
        f"{embedded} {RATE_WORDS[0].upper()}{RATE_WORDS[1:]}."
    )
