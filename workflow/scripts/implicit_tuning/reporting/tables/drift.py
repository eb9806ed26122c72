"""Drift (paper, section 5.2): how often a single-task run's responses carry the task's mark, near
the task's domain and far from it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from implicit_tuning.analysis.statistics import mean_score, paired_difference
from implicit_tuning.reporting.tables.layout import Table, measured
from implicit_tuning.reporting.tables.similarity import (
    BRACKETS,
    SimilarityRuns,
    embedded_by,
    read_runs,
)

REGIONS = ("near", "far")


def build(
    inputs: Mapping[str, Path],
    label: str,
    reference: str,
    adaptations: Sequence[str],
    embedding: str,
) -> Table:
    """The table: two rows, near and far, for each base and adaptation whose task has a mark.

    The arguments are those of `tables.similarity.build`. `share` and `reference_share` are
    percentages of the responses of the run and of the reference run of the same base and seed,
    `difference` is in percentage points. A region without instructions has n = 0 and empty cells.

    Raises ValueError when no task has a mark.
    """
    runs = read_runs(inputs, adaptations)
    marked = [run for run in runs if run.summary["mark"] is not None]
    if not marked:
        raise ValueError("no task of this table has a mark: leave out the table of drift")
    rows = [_row(run, region) for run in marked for region in REGIONS]
    return Table(pd.DataFrame(rows), _caption(runs, label, reference, embedding))


def _row(run: SimilarityRuns, region: str) -> dict:
    chosen = run.near if region == "near" else ~run.near
    own, reference = (run.scores(name)[:, chosen] for name in ("marked", "reference_marked"))
    some = chosen.any()
    return {
        "base": run.base,
        "adaptation": run.adaptation,
        "mark": run.summary["mark"],
        "region": region,
        **measured("share", mean_score(own) if some else None),
        **measured("reference_share", mean_score(reference) if some else None),
        **measured("difference", paired_difference(own, reference) if some else None),
        "n": own.size,
        "n_seeds": len(run.seeds),
        "in_training": _counted(run.summary, "n_task_marked", "n_task_responses"),
        "in_reference_training": _counted(
            run.summary, "n_reference_set_marked", "n_reference_responses"
        ),
    }


def _counted(summary: Mapping, marked: str, responses: str) -> str:
    return f"{summary[marked]} of {summary[responses]}"


def _caption(runs: Iterable[SimilarityRuns], label: str, reference: str, embedding: str) -> str:
    bare = dict.fromkeys(run.adaptation for run in runs if run.summary["mark"] is None)
    left_out = f" Left out, for their task has no mark: {', '.join(bare)}." if bare else ""
    return (
        f"**{label}.** Share in % of the responses that carry the mark of the run's task. `near` "
        "are the evaluation instructions at least as similar to the task's training instructions "
        "as all but the most distant 5 % of those are to each other, `far` all others. "
        f"`reference_share`: of the responses of the run '{reference}' of the same base and seed "
        "to the same instructions; `difference`: in percentage points, paired by instruction. "
        "`in_training` and `in_reference_training`: of the responses that the two were finetuned "
        f"on. A region without instructions is empty. {embedded_by(runs, embedding)} {BRACKETS} "
        f"over seeds and instructions; exact where nearly all responses agree).{left_out}"
    )
