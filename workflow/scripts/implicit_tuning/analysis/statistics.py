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
# Fewer instructions than this that end otherwise than all others tell nothing by themselves: five
# that all go one way have a two-sided sign test of 2 / 2**5 > 0.05.
FEW = 6
# Scores this near to a draw (differences: to none) count as one. Judges that weigh their verdicts
# by probabilities hardly ever give the same score twice.
SLIGHT = 1.0
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

    @property
    def value(self) -> float:
        return self.mean


@dataclass(frozen=True)
class Ratio:
    """Mean length of the model's outputs over that of the reference's, with its interval.

    It is one ratio of all seeds, without a deviation over them.
    """

    value: float
    low: float
    high: float
    std: None = None


def summarise(annotations: Annotations) -> WinRate:
    """Returns the win rate over the judged pairs of one comparison.

    The interval is a percentile bootstrap over instructions; where nearly all pairs end alike, it
    is as wide as the exact binomial one, and of a run against itself it is a point. Raises
    ValueError when no pair was judged.
    """
    scores = np.array([score for score in _scores(annotations).values() if score is not None])
    if scores.size == 0:
        raise ValueError("no pair of this comparison was judged: there is no win rate to give")
    mean = combine([annotations])
    several = scores.size > 1
    return WinRate(
        win_rate=mean.mean,
        standard_error=float(scores.std(ddof=1) / np.sqrt(scores.size)) if several else None,
        low=mean.low,
        high=mean.high,
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
    "The pigeonhole bootstrap"). Runs against themselves have 50 by definition, and no interval but
    that point.

    Raises ValueError when the seeds were not judged on the same instructions.
    """
    matrix = _score_matrix(seeds)
    if all(_against_itself(annotations) for annotations in seeds):
        return mean_over_seeds(matrix)
    return mean_score(matrix)


def difference(seeds: Sequence[Annotations], baseline: Sequence[Annotations]) -> SeedMean:
    """Returns the win rate of `seeds` minus that of `baseline`, paired by seed and instruction.

    Both are given in the same order of seeds. A pair counts only where both sides were judged. The
    interval is that of `paired_difference`.
    """
    return paired_difference(*_paired_matrices(seeds, baseline))


def mean_score(scores: np.ndarray) -> SeedMean:
    """Returns the mean over seeds of scores from 0 to 100 [seeds, items], NaN where there is none.

    The interval is that of `mean_over_seeds`, widened where nearly all items score alike.
    """
    mean = mean_over_seeds(scores)
    low, high = widened((mean.low, mean.high), scores, np.arange(scores.shape[1]))
    return replace(mean, low=low, high=high)


def paired_difference(scores: np.ndarray, others: np.ndarray) -> SeedMean:
    """Returns the mean over seeds of `scores` less `others`, paired by seed and item.

    Both are [seeds, items] of scores from 0 to 100, NaN where there is none; one model without a
    seed, [1, items], is paired with each. What seeds and items have in common cancels. The interval
    is that of `mean_over_seeds` on the differences, widened where nearly all items differ alike, or
    not at all: no difference in 200 pairs is no certainty.
    """
    matrix = scores - others
    mean = mean_over_seeds(matrix)
    low, high = widened((mean.low, mean.high), matrix, np.arange(matrix.shape[1]), least=-100.0)
    return replace(mean, low=low, high=high)


def mean_over_seeds(scores: np.ndarray) -> SeedMean:
    """Returns the mean over seeds of each seed's mean score, with its interval.

    `scores` has shape [seeds, items], of any unit; NaN where there is no value. Items are what the
    seeds have in common (instructions, pairs to rank), in one order. The interval is the bootstrap
    of `combine`; for one seed it draws items alone.

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

    The test is that of `sign_flip_test` on the scores less 50, or less the baseline's.
    """
    if baseline is None:
        return sign_flip_test(_score_matrix(seeds) - 50.0)
    scores, others = _paired_matrices(seeds, baseline)
    return sign_flip_test(scores - others)


def sign_flip_test(differences: np.ndarray) -> float:
    """Returns the two-sided p-value of differences [seeds, items] being none.

    A permutation test by signs: were both sides alike, each item's difference (its mean over seeds)
    would be as likely to have the other sign. NaN are left out. The seeds are taken as they are:
    the test speaks of these runs on other items. `RESAMPLES` random sets of signs, or all where
    there are no more than that; a single difference, or none, gives 1.
    """
    known = differences[:, ~np.isnan(differences).all(axis=0)]
    means = np.nanmean(known, axis=0)
    means = means[means != 0]  # a zero has no sign to change
    if means.size < 2:
        return 1.0
    result = permutation_test(
        (means,),
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


def _against_itself(annotations: Annotations) -> bool:
    """Whether a run was its own reference, and so drew with it throughout."""
    return all(
        row["preference"] == 1.5 and row["generator_1"] == row["generator_2"] for row in annotations
    )


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
                f"seeds 0 and {number} of a mean differ in {differing} of their instructions: "
                "judge all seeds on one evaluation set"
            )
    return np.array([[scores[key] for key in instructions] for scores in by_seed], dtype=float)


def _paired_matrices(
    seeds: Sequence[Annotations], baseline: Sequence[Annotations]
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of both [seeds, instructions], in one order."""
    if len(seeds) != len(baseline):
        raise ValueError(f"{len(seeds)} seeds cannot be paired with a baseline of {len(baseline)}")
    matrix = _score_matrix([*seeds, *baseline])
    return matrix[: len(seeds)], matrix[len(seeds) :]


def widened(
    interval: tuple[float, float], scores: np.ndarray, items: np.ndarray, least: float = 0.0
) -> tuple[float, float]:
    """The interval, as wide as the exact one where nearly all items score alike.

    With fewer than FEW items that ever end otherwise than most, a bootstrap has too little to
    resample: no win in 200 pairs would read as certainty. The shares of items above and below the
    others then have Clopper and Pearson's interval each, where one counts in full that lies as far
    off as a score can, and a draw among losses half. For wins and losses alone this is the exact
    interval of the wins. Across the middle a score can lie as far as the usual ones do on their side,
    or as the farthest of these: so items that all differ one way have an interval without 0 just
    where a sign test finds them to differ.

    Args:
        interval: the bootstrap's, which is never narrowed.
        scores: from `least` to 100, of which the middle is a draw, or no difference; NaN where
            there is none.
        items: what each score is of (broadcast to `scores`): several scores of one item, such as
            those of seeds, do not multiply the evidence.
        least: the lowest score there can be; -100 for differences.
    """
    known = ~np.isnan(scores)
    items, scores = np.broadcast_to(items, scores.shape)[known], scores[known]
    middle = (least + 100) / 2
    kinds = _kinds(scores, middle)
    levels, counts = np.unique(kinds, return_counts=True)
    usual = levels[counts.argmax()]
    if np.unique(items[kinds != usual]).size >= FEW:
        return interval
    n, level = np.unique(items).size, scores[kinds == usual].mean()
    off = np.where(kinds == usual, 0.0, scores - level)
    opposite = 2 * middle - level
    highest = 100.0 if usual >= 0 else max(opposite, scores.max())
    lowest = least if usual <= 0 else min(opposite, scores.min())
    up = _exact_reach(off.clip(min=0.0).mean(), highest - level, n)
    down = _exact_reach(-off.clip(max=0.0).mean(), level - lowest, n)
    low, high = level + up[0] - down[1], level + up[1] - down[0]
    return float(min(interval[0], low)), float(max(interval[1], high))


def _kinds(scores: np.ndarray, middle: float) -> np.ndarray:
    """1 for a win, 0 for a draw, -1 for a loss; of differences up, none and down."""
    return np.where(np.abs(scores - middle) < SLIGHT, 0.0, np.sign(scores - middle))


def _exact_reach(mean: float, room: float, n: int) -> tuple[float, float]:
    """Clopper and Pearson's interval of a mean that n items make up, each of 0 or all of `room`.

    A count between two whole ones takes the outer ends.
    """
    if room == 0:
        return 0.0, 0.0
    count = round(mean / room * n, 6)  # it has rounding errors
    ends = [
        binomtest(int(whole), n).proportion_ci(CONFIDENCE, method="exact")
        for whole in (np.floor(count), np.ceil(count))
    ]
    return room * ends[0].low, room * ends[1].high


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
