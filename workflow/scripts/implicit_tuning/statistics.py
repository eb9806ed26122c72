"""Win rates with their uncertainty, from the annotations of comparisons.

Units: win rates, differences, standard errors and interval ends are percentages (differences:
percentage points). A pair's score is 100 * (preference - 1), as in AlpacaEval: 100 for a win of the
model under test, 0 for a loss, 50 for a draw. Intervals are 95 % percentile bootstrap intervals
with a fixed seed, so equal annotations give equal bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import binomtest, bootstrap

CONFIDENCE = 0.95
RESAMPLES = 9_999
SEED = 20240914
FEW = 5

Annotations = Sequence[Mapping]


@dataclass(frozen=True)
class WinRate:
    """Win rate of one comparison; the interval is a bootstrap over instructions.

    `n` counts the judged pairs and is the sum of wins, losses and draws; `standard_error` is the
    standard deviation over instructions divided by sqrt(n), None for a single pair.
    """

    win_rate: float
    standard_error: float | None
    low: float
    high: float
    n: int
    n_wins: int
    n_losses: int
    n_draws: int


@dataclass(frozen=True)
class SeedMean:
    """A mean over seeds in percent (or percentage points, for a difference).

    `std` is the standard deviation of the per-seed values (ddof=1), None for one seed. The interval
    covers seeds and instructions (see `combine`). `n` counts the judged pairs of all seeds.
    """

    mean: float
    std: float | None
    low: float
    high: float
    n: int
    n_seeds: int


def summarise(annotations: Annotations) -> WinRate:
    """Returns the win rate over the judged pairs of one comparison.

    The interval is scipy's percentile bootstrap over instructions; where nearly all pairs end
    alike, it is as wide as the exact binomial one. Raises ValueError when no pair was judged.
    """
    scores = np.array([score for score in _scores(annotations).values() if score is not None])
    if scores.size == 0:
        raise ValueError("no pair of this comparison was judged: there is no win rate to give")
    low, high = widened(_instruction_interval(scores), scores, scores.size)
    several = scores.size > 1
    return WinRate(
        win_rate=float(scores.mean()),
        standard_error=float(scores.std(ddof=1) / np.sqrt(scores.size)) if several else None,
        low=low,
        high=high,
        n=int(scores.size),
        n_wins=int((scores > 50).sum()),
        n_losses=int((scores < 50).sum()),
        n_draws=int((scores == 50).sum()),
    )


def combine(seeds: Sequence[Annotations]) -> SeedMean:
    """Returns the mean over seeds of the per-seed win rates, each over its judged pairs.

    The interval is a hierarchical percentile bootstrap: each of `RESAMPLES` rounds draws as many
    seeds as there are, with replacement, and independently one set of instructions, with
    replacement, that is used for all drawn seeds alike (the seeds answer the same instructions, so
    their scores are paired; a base or the rules adapter, which has one set of answers, is paired
    with the reference run of each seed). With one seed it is the interval of `summarise`. Few seeds
    make a rough interval: it cannot know of seeds worse than the worst one seen, and where seeds do
    not differ it is too wide, since both resamplings count the chance of single pairs (Owen 2007,
    "The pigeonhole bootstrap").

    Raises ValueError when the seeds were not judged on the same instructions.
    """
    matrix = _score_matrix(seeds)
    mean = _seed_mean(matrix)
    # Seeds answer the same instructions, so they do not multiply the evidence.
    low, high = widened((mean.low, mean.high), matrix, matrix.shape[1])
    return replace(mean, low=low, high=high)


def difference(seeds: Sequence[Annotations], baseline: Sequence[Annotations]) -> SeedMean:
    """Returns the win rate of `seeds` minus that of `baseline`, paired by seed and instruction.

    Both are given in the same order of seeds. The bootstrap is that of `combine` on the differences
    of the scores, so what seeds and instructions have in common cancels. A pair counts only where
    both sides were judged.
    """
    if len(seeds) != len(baseline):
        raise ValueError(f"{len(seeds)} seeds cannot be paired with a baseline of {len(baseline)}")
    matrix = _score_matrix([*seeds, *baseline])
    return _seed_mean(matrix[: len(seeds)] - matrix[len(seeds) :])


def length_ratio(annotations: Annotations) -> float | None:
    """Returns the mean length of the model's outputs over that of the reference's, in characters.

    The lengths are those of AlpacaEval's `avg_length`. None when every reference output is empty.
    """
    model = sum(row["length_2"] for row in annotations)
    reference = sum(row["length_1"] for row in annotations)
    return model / reference if reference else None


def _scores(annotations: Annotations) -> dict[str, float | None]:
    """Returns the score (percent) by instruction, None where the judge gave no verdict."""
    return {
        row["instruction_sha256"]: None
        if row["preference"] is None
        else 100.0 * (row["preference"] - 1.0)
        for row in annotations
    }


def _score_matrix(seeds: Sequence[Annotations]) -> np.ndarray:
    """Returns scores of shape [seeds, instructions], NaN where a pair was not judged."""
    if not seeds:
        raise ValueError("there are no seeds to take a mean over")
    by_seed = [_scores(annotations) for annotations in seeds]
    instructions = list(by_seed[0])
    for number, scores in enumerate(by_seed):
        if set(scores) != set(instructions):
            differing = len(set(scores) ^ set(instructions))
            raise ValueError(
                f"seeds 0 and {number} of a mean differ in {differing} instructions: "
                "judge all seeds on one evaluation set"
            )
    return np.array([[scores[key] for key in instructions] for scores in by_seed], dtype=float)


def _seed_mean(matrix: np.ndarray) -> SeedMean:
    judged = ~np.isnan(matrix)
    if not judged.any(axis=1).all():
        raise ValueError("a seed without any judged pair cannot enter a mean over seeds")
    means = np.nanmean(matrix, axis=1)
    single = len(matrix) == 1
    low, high = _instruction_interval(matrix[judged]) if single else _seed_interval(matrix)
    return SeedMean(
        mean=float(means.mean()),
        std=None if single else float(means.std(ddof=1)),
        low=low,
        high=high,
        n=int(judged.sum()),
        n_seeds=len(matrix),
    )


def _instruction_interval(scores: np.ndarray) -> tuple[float, float]:
    if np.ptp(scores) == 0:
        return float(scores[0]), float(scores[0])
    interval = bootstrap(
        (scores,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",  # BCa has no answer when almost all pairs end alike
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def widened(interval: tuple[float, float], scores: np.ndarray, n: int) -> tuple[float, float]:
    """The interval, as wide as Clopper and Pearson's exact one where nearly all scores are equal.

    With fewer than FEW pairs that end otherwise, a bootstrap has too little to resample: no win in
    200 pairs would read as certainty. The exact interval is that of the wins, draws counted half,
    in `n` instructions. Nothing but draws (a run against itself) keeps its point.
    """
    judged = scores[~np.isnan(scores)]
    levels, counts = np.unique(judged, return_counts=True)
    if judged.size - counts.max() >= FEW or list(levels) == [50.0]:
        return interval
    wins = judged.mean() / 100 * n
    exact = [
        binomtest(int(count), n).proportion_ci(CONFIDENCE, method="exact")
        for count in (np.floor(wins), np.ceil(wins))
    ]
    return min(interval[0], 100 * exact[0].low), max(interval[1], 100 * exact[1].high)


def _seed_interval(matrix: np.ndarray) -> tuple[float, float]:
    """Hierarchical bootstrap over the rows (seeds) and, in common, the columns (instructions)."""
    n_seeds, n_instructions = matrix.shape
    rng = np.random.default_rng(SEED)
    judged = ~np.isnan(matrix)
    weights = rng.multinomial(
        n_instructions, np.full(n_instructions, 1 / n_instructions), size=RESAMPLES
    ).astype(float)  # [rounds, instructions]: how often each instruction was drawn
    totals = weights @ np.where(judged, matrix, 0.0).T
    counts = weights @ judged.astype(float).T
    means = totals / np.maximum(counts, 1.0)  # [rounds, seeds]
    drawn = rng.integers(n_seeds, size=(RESAMPLES, n_seeds))
    rounds = np.take_along_axis(means, drawn, axis=1).mean(axis=1)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(rounds, [tail, 100 - tail])
    return float(low), float(high)
