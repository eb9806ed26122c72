"""Comparisons as tables read them, grouped into the runs that a mean is taken over."""

import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from implicit_tuning.analysis.statistics import Annotations, combine, holm, length_ratio
from implicit_tuning.data.reading import read_rows
from implicit_tuning.reporting.tables.layout import measured

# For captions: what stands in the cells of every table of win rates.
RATE_WORDS = (
    "± is the standard deviation over seeds (of a model without seeds: over references), brackets "
    "the 95 % interval (bootstrap over seeds and instructions; exact where nearly all pairs end "
    "alike)"
)
LENGTH_WORDS = (
    "`length_ratio` is the mean length of the answers over that of the reference's, in characters "
    "(bootstrap over instructions)"
)


@dataclass(frozen=True)
class ComparisonResult:
    """One run's comparison as the tables read it.

    `seed` is the run's own, None for one model against all references (base, rules): its rows carry
    the reference's seed. `reference_seed` is None for references of the data set itself.
    `annotations` and `summary` are those of `judging.alpaca.Comparison`.
    """

    base: str
    adaptation: str
    seed: int | None
    reference_seed: int | None
    judge: str
    annotations: list[dict]
    summary: dict

    @property
    def table_seed(self) -> int | None:
        return self.reference_seed if self.seed is None else self.seed


Row = TypeVar("Row", bound=Hashable)
Group = tuple[str, str, str]  # judge, base, adaptation
Groups = dict[Group, list[ComparisonResult]]


def read_result(name: str, folder: Path) -> ComparisonResult:
    """Reads `annotations.jsonl` and `summary.json` of a comparison's data folder.

    `name` is the levels of the comparison's node, joined by "/": base, adaptation, seed ("none"
    for a run without one), evaluation, reference seed (or "none"), judge.
    """
    base, adaptation, seed, _, reference_seed, judge = name.split("/")
    return ComparisonResult(
        base=base,
        adaptation=adaptation,
        seed=None if seed == "none" else int(seed),
        reference_seed=None if reference_seed == "none" else int(reference_seed),
        judge=judge,
        annotations=list(read_rows(folder / "annotations.jsonl")),
        summary=json.loads((folder / "summary.json").read_text(encoding="utf-8")),
    )


def read_groups(
    inputs: Mapping[str, Path], adaptations: Sequence[str]
) -> tuple[Groups, Path | None]:
    """Returns the comparisons of a table's inputs in groups, and the judge's calibration, if any.

    Raises ValueError as `grouped` does.
    """
    folders = dict(inputs)
    calibration = folders.pop("calibration", None)
    comparisons = [read_result(name, folder) for name, folder in folders.items()]
    return grouped(comparisons, adaptations), calibration


def grouped(comparisons: Iterable[ComparisonResult], adaptations: Sequence[str]) -> Groups:
    """Returns the runs of each group by seed; groups by judge, base (as met) and adaptation.

    Raises ValueError for a run given twice and for an adaptation that `adaptations` does not name.
    """
    found: Groups = {}
    for run in comparisons:
        if run.adaptation not in adaptations:
            raise ValueError(
                f"a comparison of base {run.base!r} has adaptation {run.adaptation!r}, which is "
                f"not among the table's: {', '.join(adaptations)}"
            )
        runs = found.setdefault((run.judge, run.base, run.adaptation), [])
        if any(other.table_seed == run.table_seed for other in runs):
            raise ValueError(
                f"base {run.base!r}, adaptation {run.adaptation!r}, seed {run.table_seed} under "
                f"judge {run.judge!r} stands twice among the comparisons"
            )
        runs.append(run)
    places = {place: number for number, place in enumerate(dict.fromkeys(g[:2] for g in found))}
    ordered = sorted(found, key=lambda g: (places[g[:2]], adaptations.index(g[2])))
    return {group: sorted(found[group], key=lambda run: run.table_seed or 0) for group in ordered}


def paired_with(groups: Groups, group: Group, baseline: str) -> list[ComparisonResult]:
    """Returns the runs of `baseline` under the same judge and base, at the seeds of the group.

    Raises ValueError where there are none, or none at just those seeds.
    """
    judge, base, adaptation = group
    others = groups.get((judge, base, baseline))
    if others is None:
        raise ValueError(f"base {base!r} has {adaptation!r} but no {baseline!r} to compare it with")
    seeds, wanted = [[run.table_seed for run in side] for side in (groups[group], others)]
    if seeds != wanted:
        raise ValueError(
            f"base {base!r}: {adaptation!r} was judged at seeds {seeds}, {baseline!r} at {wanted}; "
            "judge both against the same references"
        )
    return others


def annotations_of(runs: Sequence[ComparisonResult]) -> list[Annotations]:
    """The annotations of runs, as `statistics` takes them."""
    return [run.annotations for run in runs]


def mean_cells(runs: Sequence[ComparisonResult]) -> dict[str, float]:
    """Returns the cells of a mean over seeds: win rate, counts, length ratio."""
    mean = combine(annotations_of(runs))
    ratio = length_ratio([row for run in runs for row in run.annotations])
    counts = {"n": mean.n, "n_seeds": mean.n_seeds}
    return measured("win_rate", mean) | counts | measured("length_ratio", ratio)


def tested(name: str, p_values: Mapping[Row, float]) -> dict[Row, dict[str, float]]:
    """Returns the cells of each test of the number `name`, corrected for all tests of the table."""
    corrected = holm(list(p_values.values()))
    return {
        row: {f"{name}_p": p, f"{name}_p_holm": together, "n_comparisons": len(p_values)}
        for (row, p), together in zip(p_values.items(), corrected, strict=True)
    }


def with_judge(label: str, groups: Groups, judge_is_truth: bool, calibration: Path | None) -> str:
    """Returns the label with what is known of the judge: its agreement with other verdicts.

    `calibration` is its calibration.json, None where there is none. Nothing is added for a judge
    that is right by construction.
    """
    note = "" if judge_is_truth else _agreement(groups, calibration)
    return "; ".join(filter(None, (label, note)))


def _agreement(groups: Groups, calibration: Path | None) -> str:
    if calibration is None:
        return "judge not calibrated"
    found = json.loads(calibration.read_text(encoding="utf-8"))
    judges = {run.summary["judge_id"] for runs in groups.values() for run in runs}
    if judges != {found["judge_id"]}:
        return f"judge not calibrated (its calibration is of judge {found['judge_id']})"
    agreement = found["measures"]["agreement"]
    return (
        f"judge agrees with {found['yardstick']} on {agreement['value']:.1f} % "
        f"[{agreement['low']:.1f}, {agreement['high']:.1f}] of {found['n_pairs']} pairs"
    )
