"""Annotations and summary of one comparison, from what the judge said in one order or in both."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from implicit_tuning.judging.judge import Verdict


@dataclass(frozen=True)
class Pass:
    """What came of judging every pair once, each in one order; by instruction.

    Pairs of identical outputs have a preference and no verdict.

    Attributes:
        verdicts: as the judge gave them, for the outputs in the order in which it saw them.
        order_switched: whether the judge saw the model's output first.
        preferences: 1 (the reference is better) to 2 (the model is), None where there is none.
    """

    verdicts: Mapping[str, Verdict]
    order_switched: Mapping[str, bool]
    preferences: Mapping[str, float | None]

    def turned(self) -> "Pass":
        """The same pass, told with the roles of model and reference exchanged."""
        return Pass(
            self.verdicts,
            {key: not switched for key, switched in self.order_switched.items()},
            {key: None if p is None else 3.0 - p for key, p in self.preferences.items()},
        )


def annotate(
    outputs: Sequence[Mapping], references: Sequence[Mapping], passes: Sequence[Pass], judge_id: str
) -> list[dict]:
    """Returns a row for each pair, in order; the fields are those of `alpaca.Comparison`.

    `passes` is one pass, or that and the one in the other order.
    """
    indexes = _indexes(outputs) or _indexes(references) or range(len(outputs))
    return [
        _annotation(index, output, reference, passes, judge_id)
        for index, output, reference in zip(indexes, outputs, references, strict=True)
    ]


def _indexes(rows: Sequence[Mapping]) -> list[int] | None:
    """The `index` of each row; None unless every row has one of its own."""
    found = [row.get("index") for row in rows]
    whole = [index for index in found if type(index) is int]
    return whole if len(set(whole)) == len(rows) else None


def _annotation(
    index: int, output: Mapping, reference: Mapping, passes: Sequence[Pass], judge_id: str
) -> dict:
    instruction = output["instruction"]
    judged = output["output"] != reference["output"]
    preferences = [one.preferences[instruction] for one in passes]
    verdicts = [one.verdicts[instruction] for one in passes] if judged else []
    status = next((verdict.status for verdict in verdicts if verdict.status != "ok"), "ok")
    return {
        "index": index,
        "instruction_sha256": hashlib.sha256(instruction.encode()).hexdigest(),
        "generator_1": reference["generator"],
        "generator_2": output["generator"],
        "length_1": len(reference["output"]),
        "length_2": len(output["output"]),
        "order_switched": passes[0].order_switched[instruction] if judged else None,
        "preference": _mean(preferences),
        "preferences": preferences if judged and len(passes) > 1 else None,
        "status": status if judged else "tie_identical",
        "verdict_logprobs": verdicts[0].logprobs if judged else None,
        "verdict_logprobs_other_order": verdicts[1].logprobs if len(verdicts) > 1 else None,
        "n_cut": max((verdict.n_cut for verdict in verdicts), default=0),
        "judge_id": judge_id,
    }


def _mean(preferences: Sequence[float | None]) -> float | None:
    """A pair that lacks a verdict in one order has none: half of one would be a position's."""
    known = [preference for preference in preferences if preference is not None]
    return math.fsum(known) / len(known) if len(known) == len(preferences) else None


def summarise_rows(
    annotations: Sequence[Mapping], outputs: Sequence[Mapping], references: Sequence[Mapping]
) -> dict:
    """Returns the summary of annotations but for the length-controlled fields."""
    metrics = win_rate(annotations)
    n = len(annotations)
    length_model, length_reference = (
        sum(row[key] for row in annotations) for key in ("length_2", "length_1")
    )
    counts = {key: int(metrics[key]) for key in ("n_wins", "n_wins_base", "n_draws", "n_total")}
    return counts | {
        "win_rate": number(metrics["win_rate"]),
        "standard_error": number(metrics["standard_error"]),
        "n_expected": n,
        "n_failed": sum(row["preference"] is None for row in annotations),
        "n_empty_model": sum(row["output"] == "" for row in outputs),
        "n_empty_reference": sum(row["output"] == "" for row in references),
        "n_cut": sum(row["n_cut"] for row in annotations),
        "n_with_logprobs": sum(row["verdict_logprobs"] is not None for row in annotations),
        "mean_length_model": length_model / n,
        "mean_length_reference": length_reference / n,
        "length_ratio": length_model / length_reference if length_reference else None,
        "position_consistency": position_consistency(annotations),
        "judge_id": annotations[0]["judge_id"],
    }


def position_consistency(annotations: Sequence[Mapping]) -> float | None:
    """Returns the share (percent) of pairs in which the judge names one winner in both orders.

    None where pairs were judged in one order only. A draw agrees with a draw alone.
    """
    both = [row["preferences"] for row in annotations if row["preferences"] is not None]
    judged = [pair for pair in both if None not in pair]
    agreeing = [
        (one > 1.5) == (other > 1.5) and (one < 1.5) == (other < 1.5) for one, other in judged
    ]
    return 100.0 * sum(agreeing) / len(agreeing) if agreeing else None


def number(value: float | None) -> float | None:
    """Returns a plain float, or None for AlpacaEval's missing values (None and NaN)."""
    return None if value is None or math.isnan(value) else float(value)


def win_rate(annotations: Sequence[Mapping]) -> Mapping[str, float]:
    """AlpacaEval's `get_winrate`, which needs NaN in place of None where all pairs failed."""
    from alpaca_eval.metrics import get_winrate

    missing = float("nan")
    preferences = [number(row["preference"]) for row in annotations]
    return get_winrate([{"preference": missing if p is None else p} for p in preferences])
