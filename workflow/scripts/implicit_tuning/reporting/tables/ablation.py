"""An ablation: a row a variant, its win rate, and its paired difference to a baseline."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from implicit_tuning.analysis.statistics import difference, paired_test
from implicit_tuning.reporting.tables.comparisons import (
    LENGTH_WORDS,
    RATE_WORDS,
    Group,
    Groups,
    annotations_of,
    mean_cells,
    paired_with,
    read_groups,
    tested,
    with_judge,
)
from implicit_tuning.reporting.tables.layout import Table, counted, measured

TABLE_COLUMNS = [
    "base",
    "adaptation",
    "setting",
    "win_rate",
    "win_rate_std",
    "win_rate_low",
    "win_rate_high",
    "against",
    "difference",
    "difference_std",
    "difference_low",
    "difference_high",
    "difference_p",
    "difference_p_holm",
    "n_comparisons",
    "n",
    "n_seeds",
    "length_ratio",
    "length_ratio_low",
    "length_ratio_high",
    "judge",
    "note",
]
OWN_REFERENCE = "against another reference"


def build(
    inputs: Mapping[str, Path],
    label: str,
    title: str,
    adaptations: Sequence[str],
    baseline: str,
    settings: Mapping[str, Mapping[str, float | str]],
    setting: str,
    reference: str,
    references: Mapping[str, str] = {},
    judge_is_truth: bool = True,
) -> Table:
    """Mean win rates (%) of the variants, and their differences (points) to the baseline.

    A difference is paired by seed of the reference and by instruction; it is tested, and the number
    of tests is stated. It is empty on the baseline's own row. Where row and baseline were compared
    with different references, it is that of two rates each against its own, and `note` says so.

    Args:
        inputs: as for `tables.main`.
        adaptations: the variants and the baseline, in the order of rows.
        baseline: the adaptation that differences are taken to.
        settings: by base, what sets each adaptation apart: a number or a text.
        setting: what the settings are, with their unit; "adaptation" where each is but a name.

    Raises:
        ValueError: an adaptation that is not listed, that has no setting, a base without the
            baseline, or row and baseline at different seeds.
    """
    groups, calibration = read_groups(inputs, adaptations)
    label = with_judge(label, groups, judge_is_truth, calibration)
    against = {name: references.get(name, reference) for name in adaptations}
    differences = _differences(groups, baseline)
    rows = [
        {
            "base": group[1],
            "adaptation": group[2],
            "setting": _setting(settings.get(group[1], {}), group[2]),
            "against": against[group[2]],
            "judge": group[0],
            "note": _note(group[2], baseline, against),
            **mean_cells(runs),
            **differences.get(group, {}),
        }
        for group, runs in groups.items()
    ]
    frame = pd.DataFrame(rows, columns=TABLE_COLUMNS).astype({"n_comparisons": "Int64"})
    return Table(frame, _caption(label, title, setting, baseline, len(differences)))


def _differences(groups: Groups, baseline: str) -> dict[Group, dict]:
    """Cells of the difference to the baseline, for all rows but its own."""
    sides = {
        group: (annotations_of(runs), annotations_of(paired_with(groups, group, baseline)))
        for group, runs in groups.items()
        if group[2] != baseline
    }
    tests = tested("difference", {group: paired_test(*both) for group, both in sides.items()})
    return {
        group: measured("difference", difference(*both)) | tests[group]
        for group, both in sides.items()
    }


def _setting(settings: Mapping[str, float | str], adaptation: str) -> str:
    """The setting as a text: two decimals would make a learning rate zero."""
    if adaptation not in settings:
        raise ValueError(
            f"adaptation {adaptation!r} has no entry in `settings` ({', '.join(settings)}): say "
            "what sets it apart"
        )
    return str(settings[adaptation])


def _note(adaptation: str, baseline: str, against: Mapping[str, str]) -> str:
    if adaptation == baseline:
        return "baseline"
    return "" if against[adaptation] == against[baseline] else OWN_REFERENCE


def _caption(label: str, title: str, setting: str, baseline: str, n_tests: int) -> str:
    by_name = setting == "adaptation"
    varied = "variants are told apart by name" if by_name else f"`setting` is {setting}"
    return (
        f"**{label or title}.** {title}; {varied}. Means over seeds of win rates in % against the "
        f"run of the same base and seed that `against` names; {RATE_WORDS}. "
        f"{_difference_words(baseline, n_tests)} {LENGTH_WORDS}."
    )


def _difference_words(baseline: str, n_tests: int) -> str:
    if not n_tests:
        return f"No row stands beside the baseline '{baseline}': there is no difference to give."
    return (
        f"`difference` is to '{baseline}', in points, paired by seed and instruction (of two rates "
        "each against its own reference, where `note` says so); its p is that of a two-sided "
        "permutation test by signs over instructions, in parentheses corrected for the "
        f"{counted(n_tests, 'comparison')} of this table (Holm)."
    )
