"""An ablation: a row a variant, its win rate, and its paired difference to a baseline."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from implicit_tuning.statistics import difference, holm, paired_test
from implicit_tuning.tables.comparisons import (
    LENGTH_WORDS,
    RATE_WORDS,
    Group,
    Groups,
    annotations_of,
    mean_cells,
    measured,
    paired_with,
    read_groups,
    with_judge,
)
from implicit_tuning.tables.layout import Table

COLUMNS = [
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


def build(
    inputs: Mapping[str, Path],
    label: str,
    title: str,
    adaptations: Sequence[str],
    baseline: str,
    settings: Mapping[str, float | str | list[str]],
    setting: str,
    reference: str,
    references: Mapping[str, str] = {},
    judge_is_truth: bool = True,
) -> Table:
    """Mean win rates (%) of the variants, and their differences (points) to the baseline.

    A difference is paired by seed of the reference and by instruction; it is tested, and the number
    of tests is stated. It is empty on the baseline's own row, and where row and baseline were
    compared with different references, which `note` then says.

    Args:
        inputs: as for `tables.main`.
        label: what kind of result the table shows, may be empty.
        title: what is varied, for people.
        adaptations: the variants and the baseline, in the order of rows.
        baseline: the adaptation that differences are taken to.
        settings: what sets each adaptation apart: a number, a text or a list of texts.
        setting: what the settings are, with their unit.
        reference: the adaptation that runs were compared with.
        references: the reference of each adaptation that has another one.
        judge_is_truth: whether the judge is right by construction.

    Raises:
        ValueError: an adaptation that is not listed, that has no setting, a base without the
            baseline, or row and baseline at different seeds.
    """
    groups, calibration = read_groups(inputs, adaptations)
    label = with_judge(label, groups, judge_is_truth, calibration)
    against = {name: references.get(name, reference) for name in adaptations}
    differences = _differences(groups, baseline, against)
    rows = [
        {
            "base": group[1],
            "adaptation": group[2],
            "setting": _setting(settings, group[2]),
            "against": against[group[2]],
            "judge": group[0],
            "note": _note(group[2], baseline, against),
            **mean_cells(runs),
            **differences.get(group, {}),
        }
        for group, runs in groups.items()
    ]
    frame = pd.DataFrame(rows, columns=COLUMNS).astype({"n_comparisons": "Int64"})
    return Table(frame, _caption(label, title, setting, baseline, len(differences)))


def _differences(groups: Groups, baseline: str, against: Mapping[str, str]) -> dict[Group, dict]:
    found, p_values = {}, []
    for group, runs in groups.items():
        others = paired_with(groups, group, baseline)
        if group[2] != baseline and against[group[2]] == against[baseline]:
            sides = annotations_of(runs), annotations_of(others)
            found[group] = measured("difference", difference(*sides))
            p_values.append(paired_test(*sides))
    for cells, p, corrected in zip(found.values(), p_values, holm(p_values), strict=True):
        cells |= {"difference_p": p, "difference_p_holm": corrected, "n_comparisons": len(found)}
    return found


def _setting(settings: Mapping[str, float | str | list[str]], adaptation: str) -> str:
    """The setting as a text: two decimals would make a learning rate zero."""
    if adaptation not in settings:
        raise ValueError(
            f"adaptation {adaptation!r} has no entry in `settings` ({', '.join(settings)}): say "
            "what sets it apart"
        )
    value = settings[adaptation]
    return " + ".join(map(str, value)) if isinstance(value, list) else str(value)


def _note(adaptation: str, baseline: str, against: Mapping[str, str]) -> str:
    if adaptation == baseline:
        return "baseline"
    if against[adaptation] == against[baseline]:
        return ""
    return (
        f"no difference: compared with {against[adaptation]!r}, the baseline with "
        f"{against[baseline]!r}"
    )


def _caption(label: str, title: str, setting: str, baseline: str, n_tests: int) -> str:
    return (
        f"**{label or title}.** {title}; `setting` is {setting}. Means over seeds of win rates in % "
        f"against the run of the same base and seed that `against` names; {RATE_WORDS}. "
        f"`difference` is to '{baseline}', in points, paired by seed and instruction; its p is that "
        "of a two-sided permutation test by signs over instructions, in parentheses corrected for "
        f"the {n_tests} comparisons of this table (Holm). {LENGTH_WORDS}."
    )
