"""Response ranking of every base and adaptation, beside the paper's (paper, response ranking)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from implicit_tuning.reading import read_rows
from implicit_tuning.statistics import SeedMean, mean_over_seeds, widened
from implicit_tuning.tables.layout import Table

SCORES_FILE = "scores.jsonl"
BASELINE = "base"
# Percentages of 5,000 comparisons (1,000 pairs of Stanford Alpaca): Hewitt, Liu, Liang, Manning,
# arXiv 2409.14254 (v1). Texts, for the paper prints them without interval or deviation.
PAPER = {
    "paper_llama2_7b": {"base": "80.4", "instruction": "77.4"},
    "paper_olmo_7b": {"base": "74.5", "instruction": "74.3"},
}
COLUMNS = [
    "base",
    "adaptation",
    "ranked_right",
    "ranked_right_std",
    "ranked_right_low",
    "ranked_right_high",
    "n",
    "n_seeds",
    "difference",
    "difference_std",
    "difference_low",
    "difference_high",
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


def build(inputs: Mapping[str, Path], label: str, adaptations: Sequence[str]) -> Table:
    """Returns a row for each base (as first met) and adaptation (as in `adaptations`).

    `ranked_right` is a percentage of comparisons, the mean over seeds; its interval is a bootstrap
    over seeds and pairs (the comparisons of a pair belong together), as wide as the exact one where
    nearly all pairs score alike. `difference` is that to the row `base` of the same base, in
    percentage points, paired pair by pair; it is empty on the row of `base`, and where `base` did
    not rank. `n` counts the
    comparisons of all seeds.

    Args:
        inputs: data folders of the rankings by the levels of their nodes,
            "base/adaptation/seed/data set", seed "none" for one model without a seed.
        label: what kind of result the table shows.
        adaptations: all of them, in the order of rows.

    Raises:
        ValueError: no ranking, an adaptation that `adaptations` does not name, or runs that did
            not rank the same pairs against the same responses.
    """
    rankings = {name: _read_ranking(folder) for name, folder in inputs.items()}
    _require_same_comparisons(rankings)
    matrices = _matrices(rankings, adaptations)
    draws = len(next(iter(rankings.values())).comparisons[0]) - 1
    rows = []
    for base, adaptation in matrices:
        rows.append(
            {
                "base": base,
                "adaptation": adaptation,
                **_rate_cells(matrices[base, adaptation], draws),
                **_difference_cells(matrices, base, adaptation),
                **{column: rates.get(adaptation) for column, rates in PAPER.items()},
            }
        )
    return Table(pd.DataFrame(rows, columns=COLUMNS), _caption(rankings, label))


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


def _matrices(
    rankings: Mapping[str, Ranking], adaptations: Sequence[str]
) -> dict[tuple[str, str], np.ndarray]:
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


def _rate_cells(matrix: np.ndarray, draws: int) -> dict:
    mean = mean_over_seeds(matrix)
    low, high = widened((mean.low, mean.high), matrix, matrix.shape[1])
    cells = _cells("ranked_right", replace(mean, low=low, high=high))
    return cells | {"n": mean.n * draws, "n_seeds": mean.n_seeds}


def _difference_cells(
    matrices: Mapping[tuple[str, str], np.ndarray], base: str, adaptation: str
) -> dict:
    if adaptation == BASELINE or (base, BASELINE) not in matrices:
        return {}
    # The base is one model without a seed: its scores are taken from those of each seed.
    return _cells(
        "difference", mean_over_seeds(matrices[base, adaptation] - matrices[base, BASELINE])
    )


def _cells(name: str, mean: SeedMean) -> dict:
    return {
        name: mean.mean,
        f"{name}_std": mean.std,
        f"{name}_low": mean.low,
        f"{name}_high": mean.high,
    }


def _caption(rankings: Mapping[str, Ranking], label: str) -> str:
    name, ranking = next(iter(rankings.items()))
    dataset = name.split("/")[-1]
    pairs, draws = len(ranking.comparisons), len(ranking.comparisons[0]) - 1
    return (
        f"**{label}.** Response ranking on {dataset}: `ranked_right` is the percentage of "
        "comparisons in which the model finds the real response to an instruction likelier, token "
        f"by token, than the response of another row; 50 is chance. {pairs} pairs × {draws} random "
        "responses a run, never the real one; `n` counts the comparisons of all seeds. "
        f"`difference` is that to the row '{BASELINE}' of the same base, where it ranked, in percentage "
        "points, paired pair by pair. ± is the standard deviation over seeds, brackets the 95 % interval "
        "(bootstrap over seeds and pairs). Columns paper_* are the paper's percentages on 5,000 "
        "comparisons of Stanford Alpaca with 7B models (arXiv 2409.14254); it prints no interval "
        "for them, and no other adaptation."
    )
