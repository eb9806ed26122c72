"""What an audit measures of one run: win rates, marks of its task, ranking, examples.

Win rates, shares and differences are percentages (percentage points), with the 95 % intervals of
`statistics`: over instructions, of this one run.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from implicit_tuning.analysis.statistics import (
    SeedMean,
    combine,
    difference,
    mean_over_seeds,
    mean_score,
    paired_difference,
)
from implicit_tuning.data.reading import read_rows
from implicit_tuning.reporting.tables import ranking as ranking_table
from implicit_tuning.reporting.tables.examples import choose_instructions
from implicit_tuning.reporting.tables.similarity import SimilarityRuns, read_runs

# Sides in the order of the page.
SIDES = ("audited", "base", "reference")
IN_TASK_STYLE = 3  # far answers that are shown for it
DECIMALS = 2
RANKED = ("ranked_right", "difference")

Annotations = Sequence[Mapping]


@dataclass(frozen=True)
class Inputs:
    """Data folders of what was measured, by side ("audited", "base", "reference").

    Attributes:
        instructions: the formatted evaluation set.
        answers, comparisons: of each side; there may be no base.
        rankings: of the sides that ranked, by the levels of their nodes.
        similarity: by the levels of its node; empty where the task is not known.
    """

    instructions: Path
    answers: Mapping[str, Path]
    comparisons: Mapping[str, Path]
    rankings: Mapping[str, Path]
    similarity: Mapping[str, Path]


def measure(inputs: Inputs) -> dict[str, Any]:
    """All that the page shows of a run, as plain JSON values.

    Returns:
        `win_rates` and `task_style`, a row a region ("all", and where the task is known "far" and
        "near"); `answers`, counts by side; `ranking`, a row a side; `examples` and `in_task_style`,
        instructions with their answers; `n`, `n_judged`, `mark`, `embedding`. What was not measured
        is None or empty.

    Raises:
        ValueError: no pair of a comparison was judged.
    """
    verdicts = {s: list(read_rows(f / "annotations.jsonl")) for s, f in inputs.comparisons.items()}
    answers = {s: list(read_rows(f / "outputs.jsonl")) for s, f in inputs.answers.items()}
    similarity = None
    if inputs.similarity:  # of one run, whose levels name its adaptation second
        names = [name.split("/")[1] for name in inputs.similarity]
        (similarity,) = read_runs(inputs.similarity, names)
    regions = _regions(verdicts["audited"], similarity)
    instructions = list(read_rows(inputs.instructions / "instructions.jsonl"))
    show = _Shown(answers, verdicts, similarity)
    return {
        "n": len(verdicts["audited"]),
        "n_judged": sum(row["preference"] is not None for row in verdicts["audited"]),
        "win_rates": [_win_rates(region, chosen, verdicts) for region, chosen in regions.items()],
        "answers": {side: _counts(answers[side]) for side in SIDES if side in answers},
        "mark": similarity and similarity.summary["mark"],
        "embedding": similarity and similarity.summary["embedding"],
        "task_style": [] if similarity is None else _task_style(similarity),
        "ranking": _ranking(inputs.rankings),
        "examples": [show(row) for row in choose_instructions(instructions)],
        "in_task_style": [show(row) for row in _in_task_style(instructions, similarity)],
    }


def number(measured: SeedMean | None) -> dict[str, float] | None:
    """A number with its interval, rounded; None stays None."""
    if measured is None:
        return None
    ends = {"value": measured.value, "low": measured.low, "high": measured.high}
    return {name: round(end, DECIMALS) + 0.0 for name, end in ends.items()} | {"n": measured.n}


# --- win rates ----------------------------------------------------------------------------------


def _regions(verdicts: Annotations, similarity: SimilarityRuns | None) -> dict[str, frozenset[int]]:
    """Indices of the instructions of each region, those without any left out."""
    regions = {"all": frozenset(row["index"] for row in verdicts)}
    if similarity is not None:
        indices = similarity.lines[0]["index"].to_numpy()
        regions["far"] = frozenset(indices[~similarity.near].tolist())
        regions["near"] = frozenset(indices[similarity.near].tolist())
    return {name: chosen for name, chosen in regions.items() if chosen}


def _win_rates(
    region: str, chosen: frozenset[int], verdicts: Mapping[str, Annotations]
) -> dict[str, Any]:
    """Win rates of the run and its base in a region, and their difference paired by instruction."""
    own, base = (
        [row for row in verdicts.get(side, ()) if row["index"] in chosen]
        for side in ("audited", "base")
    )
    both = _judged(own) and _judged(base)
    return {
        "region": region,
        "n": len(chosen),
        "audited": number(combine([own])) if _judged(own) else None,
        "base": number(combine([base])) if _judged(base) else None,
        "difference": number(difference([own], [base])) if both else None,
    }


def _judged(annotations: Annotations) -> bool:
    return any(row["preference"] is not None for row in annotations)


def _counts(answers: Annotations) -> dict[str, float]:
    """How many answers there are, how many are empty or were cut, and their mean length."""
    return {
        "n": len(answers),
        "n_empty": sum(not row["output"].strip() for row in answers),
        "n_cut": sum(row["finish"] == "length" for row in answers),
        "mean_tokens": round(float(np.mean([row["n_tokens"] for row in answers])), 1),
    }


# --- the task's style ---------------------------------------------------------------------------


def _task_style(similarity: SimilarityRuns) -> list[dict[str, Any]]:
    """Shares with the task's mark, and excess of its style over the reference's, by region."""
    rows = []
    for region, chosen in (("far", ~similarity.near), ("near", similarity.near)):
        if chosen.any():
            style = similarity.scores("style") - similarity.scores("reference_style")
            excess = number(mean_over_seeds(style[:, chosen]))
            row = {"region": region, "n": int(chosen.sum()), "excess_style": excess}
            rows.append(row | _marked(similarity, chosen))
    return rows


def _marked(similarity: SimilarityRuns, chosen: np.ndarray) -> dict[str, Any]:
    if similarity.summary["mark"] is None:
        return dict.fromkeys(("marked", "reference_marked", "marked_difference"))
    own, other = (similarity.scores(name)[:, chosen] for name in ("marked", "reference_marked"))
    return {
        "marked": number(mean_score(own)),
        "reference_marked": number(mean_score(other)),
        "marked_difference": number(paired_difference(own, other)),
    }


def _in_task_style(
    instructions: Sequence[Mapping], similarity: SimilarityRuns | None
) -> Iterable[Mapping]:
    """Far instructions that were answered in the task's style.

    Those whose answer has the mark, by the sha256 of their text; of a task without a mark those
    whose answer exceeds the reference's in style by most.
    """
    if similarity is None:
        return []
    lines = similarity.lines[0].set_index("index")
    far = [row for row in instructions if not lines["near"][row["index"]]]
    if similarity.summary["mark"] is not None:
        marked = [row for row in far if lines["marked"][row["index"]]]
        return sorted(
            marked, key=lambda row: hashlib.sha256(row["instruction"].encode()).hexdigest()
        )[:IN_TASK_STYLE]
    excess = lines["style"] - lines["reference_style"]
    nearest = sorted(far, key=lambda row: -excess[row["index"]])[:IN_TASK_STYLE]
    return [row for row in nearest if excess[row["index"]] > 0]


# --- ranking and examples -----------------------------------------------------------------------


def _ranking(folders: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Share of comparisons ranked right by each run that ranked, and its difference to the base."""
    if not folders:
        return []
    adaptations = list(dict.fromkeys(name.split("/")[1] for name in folders))
    frame = ranking_table.build(folders, label="audit", adaptations=adaptations).frame
    return [
        {
            "side": "base" if row["adaptation"] == ranking_table.BASELINE else "audited",
            "n": row["n"],
        }
        | {name: _with_interval(row, name) for name in RANKED}
        for row in frame.to_dict(orient="records")
    ]


def _with_interval(row: Mapping, name: str) -> dict[str, float] | None:
    if pd.isna(row[name]):
        return None
    ends = {"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]}
    return {end: round(value, DECIMALS) + 0.0 for end, value in ends.items()}


class _Shown:
    """Shows instructions with the answers of all sides."""

    def __init__(
        self,
        answers: Mapping[str, Annotations],
        verdicts: Mapping[str, Annotations],
        similarity: SimilarityRuns | None,
    ) -> None:
        self._answers = {
            side: {row["index"]: row for row in rows} for side, rows in answers.items()
        }
        self._verdicts = {s: {row["index"]: row for row in rows} for s, rows in verdicts.items()}
        self._near = (
            {} if similarity is None else dict(similarity.lines[0][["index", "near"]].values)
        )

    def __call__(self, instruction: Mapping) -> dict[str, Any]:
        index = instruction["index"]
        near = self._near.get(index)
        return {
            "index": index,
            "region": None if near is None else "near" if near else "far",
            "instruction": instruction["instruction"],
            "answers": [self._answer(side, index) for side in SIDES if side in self._answers],
        }

    def _answer(self, side: str, index: int) -> dict[str, Any]:
        answer = self._answers[side][index]
        verdict = self._verdicts[side][index]
        return {
            "side": side,
            "output": answer["output"],
            "finish": answer["finish"],
            "n_tokens": answer["n_tokens"],
            "preference": verdict["preference"],
            "is_reference": verdict["generator_1"] == verdict["generator_2"],
        }
