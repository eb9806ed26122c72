"""The paper's claims as orderings of win rates, each held against ours."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from implicit_tuning.analysis.paper import BASE_NAMES, REFERENCE, WIN_RATES, PaperWinRate
from implicit_tuning.analysis.statistics import SeedMean, combine, difference
from implicit_tuning.reporting.tables.comparisons import (
    RATE_WORDS,
    Group,
    Groups,
    annotations_of,
    paired_with,
    read_groups,
)
from implicit_tuning.reporting.tables.layout import Table, counted, measured

TASKS = ("mbpp", "gsm8k", "poetry", "recipes")
# A lift below this many points is none: what the paper says of chess, whose rate on OLMo-7B is 1.6
# points above the base's.
NO_LIFT = 5.0
TABLE_COLUMNS = [
    "base",
    "claim",
    "adaptation",
    "compared_with",
    "paper",
    "difference",
    "difference_std",
    "difference_low",
    "difference_high",
    "verdict",
    "why",
    "n",
    "n_seeds",
    "judge",
]
# Verdicts, and how a caption counts several of them.
VERDICTS = {"agrees": "agree", "contradicts": "contradict", "undecided": "undecided"}


@dataclass(frozen=True)
class Claim:
    """One win rate stands above, below, or not above another.

    `other` is None for the reference, 50 by definition. `expected` is "above", "below" or "not
    above" (by NO_LIFT points or more).
    """

    text: str
    adaptation: str
    other: str | None
    expected: str


CLAIMS = (
    Claim("response tuning lifts the base", "response", "base", "above"),
    Claim("response tuning does not reach instruction tuning", "response", None, "below"),
    *(Claim(f"tuning on {task} alone lifts the base", task, "base", "above") for task in TASKS),
    Claim(f"chess does not lift the base (by {NO_LIFT:.0f} points)", "chess", "base", "not above"),
    *(
        Claim(f"tuning on {task} alone stays below response tuning", task, "response", "below")
        for task in (*TASKS, "chess")
    ),
    Claim("three rules lift the base", "rules", "base", "above"),
    Claim("without the EOS rule they do worse", "rules-no-eos", "rules", "below"),
    Claim("without the repetition rule they do worse", "rules-no-repetition", "rules", "below"),
    Claim("without the token bias they do worse", "rules-no-bias", "rules", "below"),
)


def build(
    inputs: Mapping[str, Path],
    label: str,
    adaptations: Sequence[str],
    paper_bases: Mapping[str, str | None],
    circumstances: Sequence[str],
    references: Mapping[str, str] = {},
) -> Table:
    """Whether our win rates agree with each claim of the paper, base by base.

    `difference` is that of the two win rates, in points, paired by seed and instruction. Claims
    about adaptations that a base was not given, or that were compared with another reference than
    the paper's, are left out. `inputs` are data folders of comparisons by the levels of their
    nodes, joined by "/". `paper_bases` has the paper's base (a key of `paper.WIN_RATES`) beside
    each base. `circumstances` say what sets the experiment apart from the paper's, a sentence each.

    Raises:
        ValueError: a run given twice, or an adaptation that `adaptations` does not name.
    """
    groups, _ = read_groups(inputs, adaptations)
    groups = {group: runs for group, runs in groups.items() if group[2] not in references}
    rows = [
        row
        for judge, base in dict.fromkeys(group[:2] for group in groups)
        for row in _rows(judge, base, groups, paper_bases.get(base), circumstances)
    ]
    return Table(pd.DataFrame(rows, columns=TABLE_COLUMNS), _caption(label, rows))


def _rows(
    judge: str,
    base: str,
    groups: Groups,
    paper_base: str | None,
    circumstances: Sequence[str],
) -> Iterator[dict]:
    for claim in CLAIMS:
        group = (judge, base, claim.adaptation)
        if group not in groups or (claim.other and (judge, base, claim.other) not in groups):
            continue
        ours = _ours(claim, group, groups)
        found = verdict(claim.expected, ours)
        yield {
            "base": base,
            "claim": claim.text,
            "adaptation": claim.adaptation,
            "compared_with": claim.other or REFERENCE,
            "paper": _paper_numbers(claim, paper_base),
            **measured("difference", ours),
            "verdict": found,
            "why": _why(found, ours, circumstances),
            "n": ours.n,
            "n_seeds": ours.n_seeds,
            "judge": judge,
        }


def _ours(claim: Claim, group: Group, groups: Groups) -> SeedMean:
    runs = annotations_of(groups[group])
    if claim.other is not None:
        return difference(runs, annotations_of(paired_with(groups, group, claim.other)))
    rate = combine(runs)
    return SeedMean(rate.mean - 50, rate.std, rate.low - 50, rate.high - 50, rate.n, rate.n_seeds)


def verdict(expected: str, ours: SeedMean) -> str:
    """Returns "agrees", "contradicts", or "undecided" where the interval allows both.

    `expected` is what a `Claim` says of the difference.
    """
    if expected == "not above":
        agrees, contradicts = ours.high < NO_LIFT, ours.low >= NO_LIFT
    else:
        sign = 1 if expected == "above" else -1
        ends = np.sort([sign * ours.low, sign * ours.high])
        agrees, contradicts = ends[0] > 0, ends[1] < 0
    return "agrees" if agrees else "contradicts" if contradicts else "undecided"


def _paper_numbers(claim: Claim, paper_base: str | None) -> str:
    """The paper's two win rates, of the base's counterpart where it has them, else of all bases."""
    names = {claim.adaptation, *([claim.other] if claim.other else [])}
    having = [base for base, rates in WIN_RATES.items() if names <= set(rates)]
    chosen = [paper_base] if paper_base in having else having
    return "; ".join(f"{BASE_NAMES[base]}: {_two_rates(claim, WIN_RATES[base])}" for base in chosen)


def _two_rates(claim: Claim, rates: Mapping[str, PaperWinRate]) -> str:
    mine = rates[claim.adaptation]
    other = "50 by definition"
    if claim.other is not None:
        other = f"{rates[claim.other].mean} ± {rates[claim.other].std}"
    return f"{mine.mean} ± {mine.std} against {other}"


def _why(found: str, ours: SeedMean, circumstances: Sequence[str]) -> str:
    if found == "agrees":
        return ""
    few = f"not decided by {counted(ours.n, 'judged pair')} over {counted(ours.n_seeds, 'seed')}"
    return "; ".join([*([few] if found == "undecided" else []), *circumstances])


def _caption(label: str, rows: Sequence[Mapping]) -> str:
    counts: dict[str, Counter] = {}
    for row in rows:
        counts.setdefault(row["base"], Counter())[row["verdict"]] += 1
    found = " ".join(
        f"{base}: {', '.join(_number_of(count[name], name) for name in VERDICTS)}."
        for base, count in counts.items()
    )
    return (
        f"**{label or 'Claims'}.** The paper's claims (arXiv 2409.14254) as orderings of two win "
        "rates, and ours. `difference` is that of `adaptation` less `compared_with` in points, paired by "
        f"seed and instruction; {RATE_WORDS}. It agrees or contradicts where the whole interval does, "
        "and is undecided otherwise; one such interval in twenty errs by chance, and there are "
        f"{len(rows)}. {found}"
    )


def _number_of(count: int, verdict: str) -> str:
    return f"{count} {verdict if count == 1 else VERDICTS[verdict]}"
