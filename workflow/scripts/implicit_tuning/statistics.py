"""Win rates with their uncertainty and their tests, from the annotations of comparisons.

Units: win rates, differences, standard errors and interval ends are percentages (differences:
percentage points). A pair's score is 100 * (preference - 1), as in AlpacaEval: 100 for a win of the
model under test, 0 for a loss, 50 for a draw. Intervals are 95 % percentile bootstrap intervals
unless a function says otherwise; resampling has a fixed seed, so equal annotations give equal bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.stats import binomtest, permutation_test, t

CONFIDENCE = 0.95
RESAMPLES = 9_999
SEED = 20240914
FEW = 5
# Rounds of a permutation test at once; bounds its memory.
BATCH = 1_000

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


@dataclass(frozen=True)
class Ratio:
    """Mean length of the model's outputs over that of the reference's, with its interval."""

    value: float
    low: float
    high: float


def summarise(annotations: Annotations) -> WinRate:
    """Returns the win rate over the judged pairs of one comparison.

    The interval is a percentile bootstrap over instructions; where nearly all pairs end alike, it
    is as wide as the exact binomial one. Raises ValueError when no pair was judged.
    """
    scores = np.array([score for score in _scores(annotations).values() if score is not None])
    if scores.size == 0:
        raise ValueError("no pair of this comparison was judged: there is no win rate to give")
    low, high = widened(_seed_interval(scores[None, :]), scores, scores.size)
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
    mean = mean_over_seeds(matrix)
    # Seeds answer the same instructions, so they do not multiply the evidence.
    low, high = widened((mean.low, mean.high), matrix, matrix.shape[1])
    return replace(mean, low=low, high=high)


def difference(seeds: Sequence[Annotations], baseline: Sequence[Annotations]) -> SeedMean:
    """Returns the win rate of `seeds` minus that of `baseline`, paired by seed and instruction.

    Both are given in the same order of seeds. The bootstrap is that of `combine` on the differences
    of the scores, so what seeds and instructions have in common cancels. A pair counts only where
    both sides were judged. Where fewer than FEW instructions differ at all, the interval is as wide
    as the exact one for how many of them do: no difference in 200 pairs is no certainty.
    """
    matrix = _score_differences(seeds, baseline)
    mean = mean_over_seeds(matrix)
    differing = np.array([np.any(column[~np.isnan(column)]) for column in matrix.T])
    if differing.sum() >= FEW:
        return mean
    share = binomtest(int(differing.sum()), differing.size).proportion_ci(CONFIDENCE, "exact").high
    return replace(mean, low=min(mean.low, -100 * share), high=max(mean.high, 100 * share))


def mean_over_seeds(scores: np.ndarray) -> SeedMean:
    """Returns the mean over seeds of each seed's mean score, with its interval.

    `scores` has shape [seeds, items], of any unit; NaN where there is no value. Items are what the
    seeds have in common (instructions, pairs to rank), in one order. The interval is that of
    `combine`, without its widening; for one seed it is a bootstrap over its items.

    Raises ValueError for a seed without any value.
    """
    judged = ~np.isnan(scores)
    if not judged.any(axis=1).all():
        raise ValueError("a seed without any judged pair cannot enter a mean over seeds")
    means = np.nanmean(scores, axis=1)
    low, high = _seed_interval(scores)
    return SeedMean(
        mean=float(means.mean()),
        std=None if len(scores) == 1 else float(means.std(ddof=1)),
        low=low,
        high=high,
        n=int(judged.sum()),
        n_seeds=len(scores),
    )


def mean_of_numbers(numbers: Sequence[float]) -> SeedMean | None:
    """Returns the mean of one number a seed, None for one seed, whose spread nobody knows.

    For numbers that are no mean over items, such as length-controlled win rates. The interval is
    Student's t over the seeds, which takes the instructions as they are; `n` counts the seeds.
    """
    if len(numbers) < 2:
        return None
    mean, std = float(np.mean(numbers)), float(np.std(numbers, ddof=1))
    reach = float(t.ppf((1 + CONFIDENCE) / 2, len(numbers) - 1)) * std / len(numbers) ** 0.5
    return SeedMean(mean, std, mean - reach, mean + reach, n=len(numbers), n_seeds=len(numbers))


def length_ratio(annotations: Annotations) -> Ratio | None:
    """Returns the mean length of the model's outputs over that of the reference's, in characters.

    Rows may be those of several seeds: the interval is a bootstrap over instructions, each drawn
    with both lengths of all its rows. The lengths are those of AlpacaEval's `avg_length`. None when
    every reference output is empty.
    """
    totals: dict[str, list[int]] = {}
    for row in annotations:
        both = totals.setdefault(row["instruction_sha256"], [0, 0])
        both[0] += row["length_2"]
        both[1] += row["length_1"]
    lengths = np.array(list(totals.values()), dtype=float)
    model, reference = lengths.sum(axis=0)
    if not reference:
        return None
    weights, _ = _draws(RESAMPLES, 1, len(lengths))
    rounds = weights @ lengths
    rounds = rounds[rounds[:, 1] > 0]
    return Ratio(float(model / reference), *_percentiles(rounds[:, 0] / rounds[:, 1]))


def paired_test(
    seeds: Sequence[Annotations], baseline: Sequence[Annotations] | None = None
) -> float:
    """Returns the two-sided p-value of a model being as good as its reference, or as `baseline`.

    A permutation test by signs: were both alike, each instruction's score (mean over seeds, less 50
    or less the baseline's score) would be as likely to have the other sign. Instructions without a
    verdict are left out. The seeds are taken as they are: the test speaks of these runs on other
    instructions. `RESAMPLES` random sets of signs, or all where there are no more than that; only
    zeros give 1.
    """
    matrix = _score_matrix(seeds) - 50.0
    if baseline is not None:
        matrix = _score_differences(seeds, baseline)
    scores = np.array([np.nanmean(column) for column in matrix.T if not np.isnan(column).all()])
    if not scores.any():
        return 1.0
    result = permutation_test(
        (scores[scores != 0],),  # a zero has no sign to change
        np.mean,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        batch=BATCH,
        rng=np.random.default_rng(SEED),
    )
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values corrected for their number, in the order given (Holm 1979).

    The smallest is multiplied by their number m, the next by m - 1, and so on; none may fall below
    one before it, and none exceeds 1.
    """
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected


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


def _score_differences(seeds: Sequence[Annotations], baseline: Sequence[Annotations]) -> np.ndarray:
    if len(seeds) != len(baseline):
        raise ValueError(f"{len(seeds)} seeds cannot be paired with a baseline of {len(baseline)}")
    matrix = _score_matrix([*seeds, *baseline])
    return matrix[: len(seeds)] - matrix[len(seeds) :]


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
    judged = ~np.isnan(matrix)
    weights, drawn = _draws(RESAMPLES, *matrix.shape)
    totals = weights @ np.where(judged, matrix, 0.0).T
    counts = weights @ judged.astype(float).T
    means = totals / np.maximum(counts, 1.0)  # [rounds, seeds]
    return _percentiles(np.take_along_axis(means, drawn, axis=1).mean(axis=1))


@lru_cache(maxsize=2)  # single runs and means over seeds: all of a table draw alike
def _draws(rounds: int, n_seeds: int, n_items: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each item was drawn in each round [rounds, items], and the seeds [rounds, seeds]."""
    rng = np.random.default_rng(SEED)
    shares = np.full(n_items, 1 / n_items)
    weights = rng.multinomial(n_items, shares, size=rounds).astype(float)
    return weights, rng.integers(n_seeds, size=(rounds, n_seeds))


def _percentiles(rounds: np.ndarray) -> tuple[float, float]:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(rounds, [tail, 100 - tail])
    return float(low), float(high)
