"""Calibration: how far a judge agrees with stored annotations, and where it leans.

A verdict's *side* is the output it prefers; a draw is half of each. Every measure has a 95 %
percentile interval from a bootstrap over instructions, since the verdicts about one instruction,
of several models, are no independent evidence. The models are taken as given.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from implicit_tuning.analysis.statistics import widened
from implicit_tuning.judging.alpaca import Comparison
from implicit_tuning.judging.stored_verdicts import SIDES, StoredPair, Yardstick, comparisons

CONFIDENCE = 0.95
RESAMPLES = 999
SEED = 20240914
FEWEST = 3  # a rank correlation of two is 1 or -1

Compare = Callable[[list[dict], list[dict]], Comparison]


@dataclass(frozen=True)
class Measure:
    """A number with its interval; all None where it cannot be told.

    `unit` is "%" for a share, whose interval is the exact one where nearly all pairs are alike (see
    `statistics.widened`), and "" for a correlation.
    """

    value: float | None
    low: float | None
    high: float | None
    unit: str


@dataclass(frozen=True)
class Calibration:
    """A judge held against a yardstick.

    `measures` are those of `MEANINGS`; `models` has a row for each generator_2: its name, its win
    rate (percent) under the yardstick and under the judge, and its number of pairs (`n_models`
    counts those that are named); `lengths` has
    a row for each fifth of the pairs by difference of lengths: its mean difference (characters)
    and both sides' share (percent) for the longer output.
    """

    judge: str
    judge_id: str
    yardstick: str
    sha256: Mapping[str, str]
    n_pairs: int
    n_instructions: int
    n_models: int
    n_failed: int
    n_unjudged: int
    n_identical: int
    measures: Mapping[str, Measure]
    models: list[dict]
    lengths: list[dict]


# What each measure says, in the order of the table.
MEANINGS = {
    "agreement": "pairs on which judge and yardstick prefer the same output (a draw is half)",
    "spearman": "rank correlation of the models' win rates under both",
    "longer_judge": "verdicts of the judge for the longer output",
    "longer_yardstick": "verdicts of the yardstick for the longer output",
    "length_correlation_judge": "rank correlation of the judge's preference with length difference",
    "length_correlation_yardstick": "the same, of the yardstick's",
    "first_shown": "verdicts of the judge for the output shown first (50: no position bias)",
    "position_consistency": "pairs with the same verdict in both orders",
}

Verdicts = dict[str, np.ndarray]  # by column, a row a pair


def calibrate(judge: str, yardstick: Yardstick, compare: Compare) -> Calibration:
    """Judges every stored pair and measures the agreement.

    `compare` is `alpaca.compare` with judge, cache and options filled in: it takes the outputs and
    the references of one couple of models. Raises ValueError when nothing could be judged.
    """
    rows = [
        row
        for group in comparisons(yardstick.pairs)
        for row in zip(group, compare(_rows(group, 1), _rows(group, 0)).annotations, strict=True)
    ]
    good = [(pair, row) for pair, row in rows if row["preference"] is not None]
    if not good:
        raise ValueError(f"judge {judge} gave no verdict about any pair of {yardstick.name}")
    verdicts = _columns(good)
    models = _model_rates(verdicts)
    return Calibration(
        judge=judge,
        judge_id=rows[0][1]["judge_id"],
        yardstick=yardstick.name,
        sha256=yardstick.sha256,
        n_pairs=len(good),
        n_instructions=len(np.unique(verdicts["instruction"])),
        n_models=sum(row["model"] != SIDES[1] for row in models),
        n_failed=len(rows) - len(good),
        n_unjudged=yardstick.n_unjudged,
        n_identical=yardstick.n_identical,
        measures=_measures_with_intervals(verdicts),
        models=models,
        lengths=_by_length(verdicts),
    )


def write_calibration(calibration: Calibration, file: Path) -> None:
    """Writes the calibration as JSON (sorted keys), as tables read it."""
    text = json.dumps(asdict(calibration), sort_keys=True, indent=2, allow_nan=False)
    file.write_text(text + "\n", encoding="utf-8", newline="\n")


def _rows(group: Sequence[StoredPair], side: int) -> list[dict]:
    """One side of a couple of models, as AlpacaEval's rows."""
    return [
        {
            "instruction": pair.instruction,
            "output": (pair.output_1, pair.output_2)[side],
            "generator": (pair.generator_1, pair.generator_2)[side],
        }
        for pair in group
    ]


def _columns(rows: Sequence[tuple[StoredPair, Mapping]]) -> Verdicts:
    instructions = {pair.instruction: None for pair, _ in rows}
    numbers = {instruction: number for number, instruction in enumerate(instructions)}
    return {
        "instruction": np.array([numbers[pair.instruction] for pair, _ in rows]),
        "model": np.array([pair.generator_2 for pair, _ in rows]),
        "yardstick": np.array([pair.preference - 1.0 for pair, _ in rows]),
        "judge": np.array([row["preference"] - 1.0 for _, row in rows]),
        "longer_by": np.array([row["length_2"] - row["length_1"] for _, row in rows], dtype=float),
        "first_shown": np.array([_first_shown(row) for _, row in rows]),
        "consistent": np.array([_consistent(row) for _, row in rows]),
    }


def _first_shown(row: Mapping) -> float:
    """Share of the verdicts about a pair, one or two, that went to the output shown first."""
    given = row["preferences"] or [row["preference"]]
    # In the drawn order the model's output stands first where it is switched; then the other way.
    model_first = [row["order_switched"], not row["order_switched"]][: len(given)]
    sides = [float(_side(p - 1.0)) for p in given]
    return float(
        np.mean([s if first else 1 - s for s, first in zip(sides, model_first, strict=True)])
    )


def _consistent(row: Mapping) -> float:
    if row["preferences"] is None:
        return float("nan")
    one, other = (_side(p - 1.0) for p in row["preferences"])
    return float(one == other)


def _side(score: np.ndarray | float) -> np.ndarray:
    """0 for output_1, 1 for output_2, 0.5 for a draw."""
    return (np.sign(np.asarray(score) - 0.5) + 1) / 2


def _measures_with_intervals(verdicts: Verdicts) -> dict[str, Measure]:
    rounds: dict[str, list[float]] = {name: [] for name in MEANINGS}
    for rows in _resamples(verdicts["instruction"]):
        sample = {key: column[rows] for key, column in verdicts.items()}
        for name, value in _measures(sample).items():
            rounds[name].append(value)
    shares = _shares(verdicts)
    return {
        name: _measure(value, np.array(rounds[name]), shares.get(name), verdicts["instruction"])
        for name, value in _measures(verdicts).items()
    }


def _resamples(instruction: np.ndarray) -> Iterator[np.ndarray]:
    """Draws instructions with replacement; yields the rows of all of their pairs."""
    order = np.argsort(instruction, kind="stable")
    rows_of = np.split(order, np.flatnonzero(np.diff(instruction[order])) + 1)
    rng = np.random.default_rng(SEED)
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(rows_of), size=len(rows_of))
        yield np.concatenate([rows_of[number] for number in drawn])


def _measure(
    value: float, rounds: np.ndarray, share: np.ndarray | None, instruction: np.ndarray
) -> Measure:
    unit = "" if share is None else "%"
    told = rounds[~np.isnan(rounds)]  # a resample may hold one length, or equal rates, alone
    if np.isnan(value) or not told.size:
        return Measure(None, None, None, unit)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(told, [tail, 100 - tail])
    if share is not None:
        low, high = widened((low, high), share, instruction)
    return Measure(value, float(low), float(high), unit)


def _measures(verdicts: Verdicts) -> dict[str, float]:
    """The value of each of `MEANINGS`, NaN where it cannot be told."""
    values = {name: _mean(share) for name, share in _shares(verdicts).items()}
    values["spearman"] = _spearman_of_models(verdicts)
    for key in ("judge", "yardstick"):
        values[f"length_correlation_{key}"] = _spearman(verdicts[key], verdicts["longer_by"])
    return {name: values[name] for name in MEANINGS}


def _shares(verdicts: Verdicts) -> dict[str, np.ndarray]:
    """What each pair adds to each measure in percent, 0 to 100; NaN where it is not asked."""
    judge, yardstick = _side(verdicts["judge"]), _side(verdicts["yardstick"])
    return {
        "agreement": 100 * (1 - np.abs(judge - yardstick)),
        "longer_judge": _for_longer(judge, verdicts["longer_by"]),
        "longer_yardstick": _for_longer(yardstick, verdicts["longer_by"]),
        "first_shown": 100 * verdicts["first_shown"],
        "position_consistency": 100 * verdicts["consistent"],
    }


def _for_longer(side: np.ndarray, longer_by: np.ndarray) -> np.ndarray:
    for_longer = np.where(longer_by > 0, side, 1 - side)
    return np.where(longer_by == 0, np.nan, 100 * for_longer)


def _mean(share: np.ndarray) -> float:
    known = share[~np.isnan(share)]
    return float(known.mean()) if known.size else float("nan")


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    if len(one) < FEWEST or np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(spearmanr(one, other).statistic)


def _spearman_of_models(verdicts: Verdicts) -> float:
    _, place = np.unique(verdicts["model"], return_inverse=True)
    counts = np.bincount(place)
    rates = [np.bincount(place, verdicts[key]) / counts for key in ("judge", "yardstick")]
    return _spearman(*rates)


def _model_rates(verdicts: Verdicts) -> list[dict]:
    rates = []
    for model in np.unique(verdicts["model"]):
        own = verdicts["model"] == model
        yardstick, judge = (
            100 * float(verdicts[key][own].mean()) for key in ("yardstick", "judge")
        )
        rates.append(
            {"model": str(model), "yardstick": yardstick, "judge": judge, "n": int(own.sum())}
        )
    return sorted(rates, key=lambda row: (-row["yardstick"], row["model"]))


def _by_length(verdicts: Verdicts, parts: int = 5) -> list[dict]:
    distance = np.abs(verdicts["longer_by"])
    different = np.flatnonzero(distance > 0)
    ordered = different[np.argsort(distance[different], kind="stable")]
    return [
        {
            "difference": float(distance[part].mean()),
            "n": len(part),
            **{
                key: _mean(_for_longer(_side(verdicts[key][part]), verdicts["longer_by"][part]))
                for key in ("yardstick", "judge")
            },
        }
        for part in np.array_split(ordered, min(parts, len(ordered)) or 1)
        if len(part)
    ]
