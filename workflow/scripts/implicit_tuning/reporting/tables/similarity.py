"""Similarity (paper, section 5.2): how a task's style in a response grows with its nearness to the
instruction, by base and single-task adaptation.

Similarities are cosines × 100 here, so that two decimals tell something.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from implicit_tuning.analysis.similarity import SIMILARITY_FILE, SUMMARY_FILE
from implicit_tuning.analysis.statistics import (
    CONFIDENCE,
    RESAMPLES,
    SEED,
    SeedMean,
    mean_over_seeds,
)
from implicit_tuning.data.reading import read_rows
from implicit_tuning.reporting.tables.layout import Table, measured

BRACKETS = "± is the standard deviation over seeds, brackets the 95 % interval (bootstrap"
# Places at which the fitted line and its band are given.
LINE_POINTS = 25
LINE_COLUMNS = [
    "base",
    "adaptation",
    "instruction_similarity",
    "style",
    "style_low",
    "style_high",
    "reference_style",
]
# Below this part of the data's variance, what a bootstrap round drew has no spread.
NO_SPREAD = 1e-9


@dataclass(frozen=True)
class SimilarityRuns:
    """The measured runs of one base and adaptation, by seed.

    `lines` has for each seed a row an instruction, with the columns of similarity.jsonl. `summary`
    is the report of the first seed; what it says of the task holds for all.
    """

    base: str
    adaptation: str
    seeds: tuple[int, ...]
    lines: tuple[pd.DataFrame, ...]
    summary: Mapping[str, object]

    def scores(self, column: str) -> np.ndarray:
        """A column times 100: cosines × 100, or percent; [seeds, instructions]."""
        return 100 * np.array([lines[column] for lines in self.lines], dtype=float)

    @property
    def near(self) -> np.ndarray:
        """Which instructions are near the task, the same ones for all seeds; [instructions]."""
        return self.lines[0]["near"].to_numpy(dtype=bool)


@dataclass(frozen=True)
class Fit:
    """Least squares of style on instruction similarity, over instructions.

    `line` has `instruction_similarity` and `style` with its interval, cosines × 100.
    """

    slope: SeedMean
    correlation: SeedMean
    line: pd.DataFrame


def build(
    inputs: Mapping[str, Path],
    label: str,
    reference: str,
    adaptations: Sequence[str],
    embedding: str,
) -> Table:
    """The table, with the extras `points` (a row an instruction) and `line` for the figure.

    `inputs` are data folders of the measured runs by the levels of their nodes, joined by "/".
    Style is measured against the training responses of `reference`.
    """
    runs = read_runs(inputs, adaptations)
    rows, lines = [], []
    for run in runs:
        nearness = run.scores("instruction_similarity")
        own, control = (
            fit_line(nearness, run.scores(name)) for name in ("style", "reference_style")
        )
        rows.append(_row(run, own, control))
        if own is not None and control is not None:
            line = own.line.assign(
                base=run.base, adaptation=run.adaptation, reference_style=control.line["style"]
            )
            lines.append(line[LINE_COLUMNS])
    line = pd.concat(lines, ignore_index=True) if lines else pd.DataFrame(columns=LINE_COLUMNS)
    points = pd.concat([_points(run) for run in runs], ignore_index=True)
    caption = _caption(runs, label, reference, embedding)
    return Table(pd.DataFrame(rows), caption, {"points": points, "line": line})


def read_runs(inputs: Mapping[str, Path], adaptations: Sequence[str]) -> list[SimilarityRuns]:
    """The runs by base (as met) and adaptation (as in `adaptations`).

    Raises ValueError for an adaptation that the list lacks, a seed that stands twice, seeds that
    were measured on different instructions, and for no runs at all.
    """
    found: dict[tuple[str, str], dict[int, Path]] = {}
    for name, folder in inputs.items():
        base, adaptation, seed, *_ = name.split("/")
        if adaptation not in adaptations:
            raise ValueError(
                f"similarity of base {base!r} has adaptation {adaptation!r}, which is not among "
                f"the table's: {', '.join(adaptations)}"
            )
        folders = found.setdefault((base, adaptation), {})
        if int(seed) in folders:
            raise ValueError(f"base {base!r}, adaptation {adaptation!r}: seed {seed} stands twice")
        folders[int(seed)] = folder
    if not found:
        raise ValueError("there are no measured runs to make a table of similarity from")
    bases = list(dict.fromkeys(base for base, _ in found))
    order = sorted(found, key=lambda group: (bases.index(group[0]), adaptations.index(group[1])))
    return [_read_group(*group, found[group]) for group in order]


def _read_group(base: str, adaptation: str, folders: Mapping[int, Path]) -> SimilarityRuns:
    seeds = sorted(folders)
    lines = [pd.DataFrame(read_rows(folders[seed] / SIMILARITY_FILE)) for seed in seeds]
    for seed, other in zip(seeds, lines, strict=True):
        if list(other["index"]) != list(lines[0]["index"]):
            raise ValueError(
                f"base {base!r}, adaptation {adaptation!r}: seeds {seeds[0]} and {seed} were "
                "measured on different instructions"
            )
    summary = json.loads((folders[seeds[0]] / SUMMARY_FILE).read_text(encoding="utf-8"))
    return SimilarityRuns(base, adaptation, tuple(seeds), tuple(lines), summary)


def _row(run: SimilarityRuns, own: Fit | None, control: Fit | None) -> dict:
    nearness = mean_over_seeds(run.scores("instruction_similarity"))
    return {
        "base": run.base,
        "adaptation": run.adaptation,
        # The same for every seed.
        "instruction_similarity": nearness.mean,
        "instruction_similarity_low": nearness.low,
        "instruction_similarity_high": nearness.high,
        **measured("style", mean_over_seeds(run.scores("style"))),
        **measured("slope", own.slope if own else None),
        **measured("correlation", own.correlation if own else None),
        **measured("reference_slope", control.slope if control else None),
        "n": nearness.n,
        "n_seeds": nearness.n_seeds,
    }


def _points(run: SimilarityRuns) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "base": run.base,
            "adaptation": run.adaptation,
            "index": run.lines[0]["index"],
            "instruction_similarity": run.scores("instruction_similarity").mean(axis=0),
            "style": run.scores("style").mean(axis=0),
            "near": run.near,
            "n_seeds": len(run.seeds),
        }
    )


def fit_line(x: np.ndarray, y: np.ndarray) -> Fit | None:
    """The line of y on x of each seed, averaged over seeds; None where x has no spread.

    Both are [seeds, instructions], cosines × 100. The intervals are those of `statistics.combine`:
    each of `RESAMPLES` rounds draws seeds and, for all of them alike, instructions.
    """
    if (np.ptp(x, axis=1) == 0).any():
        return None
    places = np.linspace(x.min(), x.max(), LINE_POINTS)
    n_seeds, n = x.shape
    whole = _fits(x, y, np.full((1, n), 1 / n), places)[0]  # [seeds, slope, correlation, line …]
    rng = np.random.default_rng(SEED)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n  # [rounds, instructions]
    drawn = rng.integers(n_seeds, size=(RESAMPLES, n_seeds))
    rounds = _fits(x, y, weights, places)
    rounds = np.take_along_axis(rounds, drawn[:, :, np.newaxis], axis=1).mean(axis=1)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.nanpercentile(rounds, [tail, 100 - tail], axis=0)
    slope, correlation = (
        _seed_mean(whole[:, number], low[number], high[number], x.size) for number in range(2)
    )
    columns = (places, whole[:, 2:].mean(axis=0), low[2:], high[2:])
    names = ("instruction_similarity", "style", "style_low", "style_high")
    return Fit(slope, correlation, pd.DataFrame(dict(zip(names, columns, strict=True))))


def _fits(x: np.ndarray, y: np.ndarray, weights: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Slope, correlation and height at each place, [rounds, seeds, 2 + places].

    `weights` [rounds, instructions] add up to 1 in each round; NaN where a round drew no spread.
    """
    by_seed = []
    for one_x, one_y in zip(x - x.mean(), y, strict=True):
        moments = np.stack([one_x, one_y, one_x**2, one_y**2, one_x * one_y])
        mean_x, mean_y, xx, yy, xy = moments @ weights.T  # [rounds] each
        variance_x, variance_y = xx - mean_x**2, yy - mean_y**2
        variance_x[variance_x <= NO_SPREAD * one_x.var()] = np.nan
        variance_y[variance_y <= NO_SPREAD * one_y.var()] = np.nan
        covariance = xy - mean_x * mean_y
        slope = covariance / variance_x
        correlation = covariance / np.sqrt(variance_x * variance_y)
        heights = mean_y[:, None] + slope[:, None] * (places - x.mean() - mean_x[:, None])
        by_seed.append(np.column_stack([slope, correlation, heights]))
    return np.stack(by_seed, axis=1)


def _seed_mean(values: np.ndarray, low: float, high: float, n: int) -> SeedMean:
    std = float(values.std(ddof=1)) if len(values) > 1 else None
    return SeedMean(float(values.mean()), std, float(low), float(high), n, len(values))


def _caption(runs: Iterable[SimilarityRuns], label: str, reference: str, embedding: str) -> str:
    return (
        f"**{label}.** Similarity in cosine × 100, means over evaluation instructions and seeds. "
        "`instruction_similarity`: of an instruction with the task's training instructions. "
        "`style`: of the run's response with the task's training responses, minus with the "
        f"training responses of '{reference}'. `slope` and `correlation`: of style over "
        "instruction similarity, over instructions; above 0, the nearer an instruction is to the "
        "task, the more the response sounds like it. `reference_slope`: the same of the responses "
        f"of '{reference}', which is what the instructions alone ask for. Empty where no "
        f"instruction is nearer than any other. {embedded_by(runs, embedding)} {BRACKETS} over "
        "seeds and instructions)."
    )


def embedded_by(runs: Iterable[SimilarityRuns], embedding: str) -> str:
    """The sentence that says what the similarities rest on."""
    descriptions = "; ".join(dict.fromkeys(str(run.summary["embedding"]) for run in runs))
    return f"Embedding {embedding}: {descriptions}."
