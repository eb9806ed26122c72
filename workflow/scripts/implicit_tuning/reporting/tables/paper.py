"""Our win rates beside the paper's, and how far their orders agree."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import pandas as pd

from implicit_tuning.analysis.paper import BASE_NAMES, JUDGE, REFERENCE, SEEDS, WIN_RATES
from implicit_tuning.analysis.statistics import combine, difference
from implicit_tuning.reporting.tables.comparisons import (
    RATE_WORDS,
    Group,
    Groups,
    annotations_of,
    mean_cells,
    paired_with,
    read_groups,
)
from implicit_tuning.reporting.tables.layout import Table, counted

TABLE_COLUMNS = [
    "base",
    "adaptation",
    "win_rate",
    "win_rate_std",
    "win_rate_low",
    "win_rate_high",
    "against",
    "n",
    "n_seeds",
    "paper_base",
    "paper_win_rate",
    "paper_win_rate_std",
    "rank",
    "paper_rank",
    "agreement",
    "judge",
]


def build(
    inputs: Mapping[str, Path],
    label: str,
    adaptations: Sequence[str],
    paper_bases: Mapping[str, str | None],
    circumstances: Sequence[str],
    references: Mapping[str, str] = {},
) -> Table:
    """Mean win rates (%) over seeds beside those of the paper, for what both have.

    `rank` counts from the highest among the adaptations that a base shares with the paper. Rows
    with a reference of their own, which `against` names, have no place in that order. Bases without
    a counterpart and adaptations without a number in the paper are left out. `inputs` are data
    folders of comparisons by the levels of their nodes, joined by "/". `paper_bases` has the
    paper's base (a key of `paper.WIN_RATES`) beside each base. `circumstances` say what sets the
    experiment apart from the paper's, a sentence each.

    Raises:
        ValueError: a run given twice, or an adaptation that `adaptations` does not name.
    """
    groups, _ = read_groups(inputs, adaptations)
    shared = {
        group: runs
        for group, runs in groups.items()
        if group[2] in WIN_RATES.get(paper_bases.get(group[1]) or "", {})
    }
    ordered = {group: runs for group, runs in shared.items() if group[2] not in references}
    places = _places(ordered, paper_bases)
    rows = [
        {
            **_beside(group, paper_bases[group[1]] or ""),
            "against": references.get(group[2], REFERENCE),
            **mean_cells(runs),
            **places.get(group, {}),
        }
        for group, runs in shared.items()
    ]
    orders = [
        _order(judge, base, ordered, paper_bases[base] or "")
        for judge, base in dict.fromkeys(group[:2] for group in ordered)
    ]
    frame = pd.DataFrame(rows, columns=TABLE_COLUMNS).astype(
        {"rank": "Int64", "paper_rank": "Int64"}
    )
    return Table(frame, _caption(label, frame, orders, circumstances))


def _beside(group: Group, paper_base: str) -> dict:
    judge, base, adaptation = group
    paper = WIN_RATES[paper_base][adaptation]
    return {
        "base": base,
        "adaptation": adaptation,
        "paper_base": BASE_NAMES[paper_base],
        "paper_win_rate": paper.mean,
        "paper_win_rate_std": paper.std,
        "judge": judge,
    }


def _places(groups: Groups, paper_bases: Mapping[str, str | None]) -> dict[Group, dict]:
    """Ranks of each row among its judge's and base's, in ours and in the paper."""
    means = {group: combine(annotations_of(runs)).mean for group, runs in groups.items()}
    found = {}
    for group in groups:
        paper = WIN_RATES[paper_bases[group[1]] or ""]
        ours = {other[2]: mean for other, mean in means.items() if other[:2] == group[:2]}
        rank = _rank(group[2], ours)
        paper_rank = _rank(group[2], {name: paper[name].mean for name in ours})
        agreement = _agreement(rank, paper_rank, len(ours))
        found[group] = {"rank": rank, "paper_rank": paper_rank, "agreement": agreement}
    return found


def _rank(name: str, rates: Mapping[str, float]) -> int:
    """Place among the rates, 1 for the highest; equals share the best place."""
    return 1 + sum(rate > rates[name] for rate in rates.values())


def _agreement(rank: int, paper_rank: int, count: int) -> str:
    if rank == paper_rank:
        return f"same place, {rank} of {count}"
    direction = "higher" if rank < paper_rank else "lower"
    return f"{counted(abs(rank - paper_rank), 'place')} {direction} than in the paper"


def _order(judge: str, base: str, groups: Groups, paper_base: str) -> str:
    """A sentence on how many pairs of adaptations stand in the paper's order."""
    paper, own = WIN_RATES[paper_base], [g for g in groups if g[:2] == (judge, base)]
    alike = opposed = unclear = 0
    for first, second in combinations(own, 2):
        others = paired_with(groups, first, second[2])
        ours = difference(annotations_of(groups[first]), annotations_of(others))
        sign = 1 if paper[first[2]].mean > paper[second[2]].mean else -1
        if ours.low <= 0 <= ours.high:
            unclear += 1
        elif ours.mean * sign > 0:
            alike += 1
        else:
            opposed += 1
    return (
        f"{base} beside {BASE_NAMES[paper_base]}, of the "
        f"{counted(alike + opposed + unclear, 'pair')} of adaptations: {alike} in the paper's order, "
        f"{opposed} in the opposite one, {unclear} not told apart (95 % interval of the paired "
        "difference)."
    )


def _caption(
    label: str, frame: pd.DataFrame, orders: Sequence[str], circumstances: Sequence[str]
) -> str:
    what = (
        f"**{label or 'Beside the paper'}.** Mean win rates in % over seeds; {RATE_WORDS}. "
        f"`paper_win_rate` is the length-controlled AlpacaEval 2 rate of arXiv 2409.14254 under "
        f"{JUDGE}, mean ± standard deviation over {SEEDS} seeds (it gives no interval): compare "
        "orders, not numbers."
    )
    parts = [what, *orders]
    if frame.empty:
        parts.append(
            "No base of this experiment stands beside one of the paper's: say which with `paper` in "
            "its row of `bases`."
        )
    if apart := frame.loc[frame["rank"].isna(), "adaptation"].unique().tolist():
        parts.append(f"With a reference of their own and so in no order: {', '.join(apart)}.")
    if circumstances:
        parts.append(f"Why orders may differ: {'; '.join(circumstances)}.")
    return " ".join(parts)
