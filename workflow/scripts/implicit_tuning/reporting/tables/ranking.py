"""Response ranking of every base and adaptation, beside the paper's (paper, response ranking)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from implicit_tuning.analysis.paper import RANKED_RIGHT
from implicit_tuning.analysis.statistics import mean_score, paired_difference, sign_flip_test
from implicit_tuning.data.reading import read_rows
from implicit_tuning.reporting.tables.comparisons import tested
from implicit_tuning.reporting.tables.layout import PUBLISHED, Table, counted, measured

SCORES_FILE = "scores.jsonl"
BASELINE = "base"
PAPER = {f"{PUBLISHED}{base.replace('-', '_')}": rates for base, rates in RANKED_RIGHT.items()}
TABLE_COLUMNS = [
    "base",
    "adaptation",
    "ranked_right",
    "ranked_right_std",
    "ranked_right_low",
    "ranked_right_high",
    "n",
    "n_seeds",
    "compared_with",
    "difference",
    "difference_std",
    "difference_low",
    "difference_high",
    "difference_p",
    "difference_p_holm",
    "n_comparisons",
    *PAPER,
]


@dataclass(frozen=True)
class Ranking:
    """One run's ranking.

    `comparisons` names each pair's source row and those of its random responses, `scores` is the
    percentage of them that the real response outscored; both have an entry a pair, in one order.
    """

    comparisons: tuple[tuple[int, ...], ...]
    scores: np.ndarray


Matrices = dict[tuple[str, str], np.ndarray]  # by base and adaptation


def build(inputs: Mapping[str, Path], label: str, adaptations: Sequence[str]) -> Table:
    """Returns a row for each base (as first met) and adaptation (as in `adaptations`).

    `ranked_right` is a percentage of comparisons, the mean over seeds; its interval is a bootstrap
    over seeds and pairs (the comparisons of a pair belong together), as wide as the exact one where
    nearly all pairs score alike. `difference` is that to the row `base` of the same base, in
    percentage points, paired pair by pair, and is tested; it is empty on the row of `base`, and
    where `base` did not rank. `n` counts the comparisons of all seeds. `inputs` are data folders by
    the levels of their nodes, "base/adaptation/seed/data set", with seed "none" for a model without
    a seed.

    Raises:
        ValueError: no ranking, an adaptation that `adaptations` does not name, or runs that did
            not rank the same pairs against the same responses.
    """
    rankings = {name: _read_ranking(folder) for name, folder in inputs.items()}
    _require_same_comparisons(rankings)
    matrices = _matrices(rankings, adaptations)
    differences = _differences(matrices)
    draws = len(next(iter(rankings.values())).comparisons[0]) - 1
    rows = [
        {
            "base": base,
            "adaptation": adaptation,
            **measured("ranked_right", mean_score(matrix)),
            "n": matrix.size * draws,
            "n_seeds": len(matrix),
            **differences.get((base, adaptation), {}),
            **{column: rates.get(adaptation) for column, rates in PAPER.items()},
        }
        for (base, adaptation), matrix in matrices.items()
    ]
    frame = pd.DataFrame(rows, columns=TABLE_COLUMNS).astype({"n_comparisons": "Int64"})
    return Table(frame, _caption(rankings, label, len(differences)))


def _read_ranking(folder: Path) -> Ranking:
    lines = list(read_rows(folder / SCORES_FILE))
    return Ranking(
        comparisons=tuple((line["source_row"], *line["random_rows"]) for line in lines),
        scores=np.array([100 * line["n_won"] / len(line["random"]) for line in lines]),
    )


def _require_same_comparisons(rankings: Mapping[str, Ranking]) -> None:
    if not rankings:
        raise ValueError("there are no rankings to make a table of")
    first, *others = rankings
    for name in others:
        if rankings[name].comparisons != rankings[first].comparisons:
            raise ValueError(
                f"the runs {first!r} and {name!r} ranked other pairs, or against other random "
                "responses: rank all runs of a table on one data set with the same settings"
            )


def _matrices(rankings: Mapping[str, Ranking], adaptations: Sequence[str]) -> Matrices:
    """Scores [seeds, pairs] (percent) by base and adaptation, in the order of rows."""
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for name, ranking in rankings.items():
        base, adaptation, *_ = name.split("/")
        if adaptation not in adaptations:
            raise ValueError(
                f"the ranking {name!r} has adaptation {adaptation!r}, which is not among the "
                f"table's: {', '.join(adaptations)}"
            )
        found.setdefault((base, adaptation), []).append(ranking.scores)
    bases = list(dict.fromkeys(base for base, _ in found))
    ordered = sorted(found, key=lambda row: (bases.index(row[0]), adaptations.index(row[1])))
    return {row: np.array(found[row]) for row in ordered}


def _differences(matrices: Matrices) -> dict[tuple[str, str], dict]:
    """Cells of the difference to the base's row, for all that have one."""
    sides = {
        (base, adaptation): (matrix, matrices[base, BASELINE])
        for (base, adaptation), matrix in matrices.items()
        if adaptation != BASELINE and (base, BASELINE) in matrices
    }
    tests = tested("difference", {row: sign_flip_test(a - b) for row, (a, b) in sides.items()})
    return {
        row: {"compared_with": BASELINE}
        | measured("difference", paired_difference(own, base))
        | tests[row]
        for row, (own, base) in sides.items()
    }


def _caption(rankings: Mapping[str, Ranking], label: str, n_tests: int) -> str:
    name, ranking = next(iter(rankings.items()))
    dataset = name.split("/")[-1]
    pairs, draws = len(ranking.comparisons), len(ranking.comparisons[0]) - 1
    return (
        f"**{label}.** Response ranking on {dataset}: `ranked_right` is the percentage of "
        "comparisons in which the model finds the real response to an instruction likelier, token "
        f"by token, than the response of another row; 50 is chance. {counted(pairs, 'pair')} × "
        f"{counted(draws, 'random response')} a run, never the real one; `n` counts the comparisons of "
        f"all seeds. ± is the standard deviation over seeds, brackets the 95 % interval (bootstrap over "
        f"seeds and pairs; exact where nearly all pairs score alike). {_difference_words(n_tests)}"
        "Columns paper_* are the paper's percentages on 5,000 "
        "comparisons of Stanford Alpaca with 7B models (arXiv 2409.14254); it prints no interval "
        "for them, and no other adaptation."
    )


def _difference_words(n_tests: int) -> str:
    if not n_tests:
        return ""
    return (
        f"`difference` is that to the row '{BASELINE}' of the same base, where it ranked, in "
        "percentage points, paired pair by pair; its p is that of a two-sided permutation test by "
        f"signs over pairs, in parentheses corrected for the {counted(n_tests, 'comparison')} of "
        "this table (Holm). "
    )
