"""The main table: the win rate of every run, and the mean over seeds of each adaptation."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from implicit_tuning.analysis.statistics import (
    SeedMean,
    length_ratio,
    mean_of_numbers,
    paired_test,
    summarise,
)
from implicit_tuning.reporting.tables.comparisons import (
    LENGTH_WORDS,
    RATE_WORDS,
    ComparisonResult,
    Group,
    Groups,
    annotations_of,
    mean_cells,
    read_groups,
    tested,
    with_judge,
)
from implicit_tuning.reporting.tables.layout import MEAN, Table, counted, measured

TABLE_COLUMNS = [
    "base",
    "adaptation",
    "seed",
    "win_rate",
    "win_rate_std",
    "win_rate_low",
    "win_rate_high",
    "win_rate_p",
    "win_rate_p_holm",
    "n_comparisons",
    "against",
    "n",
    "n_seeds",
    "length_ratio",
    "length_ratio_low",
    "length_ratio_high",
    "length_controlled_win_rate",
    "length_controlled_win_rate_std",
    "length_controlled_win_rate_low",
    "length_controlled_win_rate_high",
    "judge",
    "note",
]
ONE_SEED = "no length-controlled rate: that of one seed has no interval"
ONE_MODEL = "no length-controlled rate: one model against several references has no spread of seeds"


def build(
    inputs: Mapping[str, Path],
    label: str,
    reference: str,
    adaptations: Sequence[str],
    notes: Mapping[str, str],
    judge_is_truth: bool = True,
    references: Mapping[str, str] = {},
) -> Table:
    """The win rate (%) of every run, and the mean over seeds of each base and adaptation.

    Rows stand by judge and base as first met, then by adaptation as in `adaptations`, then by seed,
    the mean last. `n` counts judged pairs, `n_seeds` the seeds of a row (of one model without
    seeds: its references). Only means are tested, and only they have a length-controlled rate,
    since that of a single run has no interval. `note` is `label`, with what is known of the judge,
    and then the adaptation's own entry in `notes`, if any. `inputs` are data folders of comparisons
    by the levels of their nodes, joined by "/"; under "calibration" the calibration.json of the
    judge, if it exists. `references` has the reference of each adaptation that has another one.

    Raises:
        ValueError: a run given twice, or an adaptation that `adaptations` does not name.
    """
    groups, calibration = read_groups(inputs, adaptations)
    label = with_judge(label, groups, judge_is_truth, calibration)
    against = {name: references.get(name, reference) for name in adaptations}
    tests = _tests(groups, against)
    rows = []
    for (judge, base, adaptation), runs in groups.items():
        common = {
            "base": base,
            "adaptation": adaptation,
            "against": against[adaptation],
            "judge": judge,
            "note": "; ".join(filter(None, (label, notes.get(adaptation)))),
        }
        rows += [common | _seed_row(run) for run in runs]
        rows.append(
            common | _mean_row(runs, common["note"]) | tests.get((judge, base, adaptation), {})
        )
    frame = pd.DataFrame(rows, columns=TABLE_COLUMNS).astype({"n_comparisons": "Int64"})
    return Table(frame, _caption(label, groups, len(tests)))


def _seed_row(run: ComparisonResult) -> dict:
    rate = summarise(run.annotations)
    return {
        "seed": str(run.table_seed),
        "win_rate": rate.win_rate,
        "win_rate_low": rate.low,
        "win_rate_high": rate.high,
        "n": rate.n,
        "n_seeds": 1,
        **measured("length_ratio", length_ratio(run.annotations)),
    }


def _mean_row(runs: Sequence[ComparisonResult], note: str) -> dict:
    controlled, why_not = _length_controlled(runs)
    return {
        "seed": MEAN,
        "note": "; ".join(filter(None, (note, why_not))),
        **mean_cells(runs),
        **measured("length_controlled_win_rate", controlled),
    }


def _length_controlled(runs: Sequence[ComparisonResult]) -> tuple[SeedMean | None, str]:
    """The mean over seeds, its t interval cut to what a rate can be, or why there is none."""
    rates = [run.summary["length_controlled_winrate"] for run in runs]
    if None in rates:
        return None, ""  # the caption says why
    if len(rates) == 1:
        return None, ONE_SEED
    if any(run.seed is None for run in runs):
        return None, ONE_MODEL
    mean = mean_of_numbers(rates)
    assert mean is not None  # of several seeds
    return replace(mean, low=max(0.0, mean.low), high=min(100.0, mean.high)), ""


def _tests(groups: Groups, against: Mapping[str, str]) -> dict[Group, dict]:
    """Tests of every mean that is compared with another adaptation than itself."""
    p_values = {
        group: paired_test(annotations_of(runs))
        for group, runs in groups.items()
        if group[2] != against[group[2]]
    }
    return tested("win_rate", p_values)


def _caption(label: str, groups: Groups, n_tests: int) -> str:
    statuses = {run.summary["lc_status"] for runs in groups.values() for run in runs}
    controlled = (
        f"Length-controlled win rate {statuses.pop()}."
        if len(statuses) == 1
        else "The length-controlled win rate stands on means alone, with Student's t interval over "
        "seeds; where a seed has none, neither has the mean."
    )
    tests = (
        "p is that of a two-sided permutation test of the mean over seeds, by signs over "
        "instructions: is the run as good as its reference? In parentheses the p-value corrected "
        f"for the {counted(n_tests, 'comparison')} of this table (Holm). "
    )
    return (
        f"**{label or 'Win rates'}.** Win rates in % against the run of the same base and seed that "
        f"`against` names; {RATE_WORDS}. {tests if n_tests else ''}{LENGTH_WORDS}. {controlled}"
    )
