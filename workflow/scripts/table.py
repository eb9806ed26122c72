"""Build one table of the experiment from its comparisons or finetunes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from implicit_tuning.artifact import building
from implicit_tuning.reading import read_rows
from implicit_tuning.tables import (
    main_table,
    read_comparison,
    rules_table,
    with_judge,
    without_paper,
    write_table,
)

HISTORY = "loss_history.jsonl"
# The paper's numbers are win rates against instruction tuning, and stand beside no others.
PAPER_REFERENCE = "instruction"
PAPER_CAPTION = (
    " Columns paper_* are length-controlled AlpacaEval 2 win rates of 7B models under gpt-4-turbo, "
    "mean ± standard deviation over five seeds (arXiv 2409.14254): compare orders, not numbers."
)


def build_table(
    inputs: Mapping[str, Path],
    destination: Path,
    table: str,
    label: str,
    reference: str,
    adaptations: Sequence[str],
    notes: Mapping[str, str],
    judge_is_truth: bool = True,
    calibration: Path | None = None,
) -> None:
    """Write <table>.csv, and a Markdown of it for reading.

    Args:
        inputs: data folders of comparisons, or loss histories of finetunes (for "loss"), by the
            levels of their nodes, joined by "/".
        destination: folder for the files.
        table: "main", "rules" or "loss".
        label: what kind of result the table shows.
        reference: the adaptation that every run was compared with.
        adaptations: all of them, in the order of rows.
        notes: remarks on single adaptations.
        judge_is_truth: whether the judge is right by construction ("loss" has none).
        calibration: the calibration.json of the judge.
    """
    if table == "loss":
        loss = pd.concat([read_history(name, file) for name, file in inputs.items()])
        loss.to_csv(destination / "loss.csv", index=False, float_format="%.6g")
        return
    comparisons = [read_comparison(name, folder) for name, folder in inputs.items()]
    label = with_judge(label, comparisons, judge_is_truth, calibration)
    builders: dict[str, Callable[[], pd.DataFrame]] = {
        "main": lambda: main_table(comparisons, adaptations, label, notes),
        "rules": lambda: rules_table(comparisons, label),
    }
    frame = builders[table]()
    if reference != PAPER_REFERENCE:
        frame = without_paper(frame)
    write_table(frame, destination, table, caption(table, label, reference))


def caption(table: str, label: str, reference: str) -> str:
    """The line above a Markdown table: what its numbers are."""
    subjects = {"main": "Win rates", "rules": "Ablation of the three rules: win rates"}
    return (
        f"**{label}.** {subjects[table]} in % against the run '{reference}' of the same base and "
        "seed; ± is the standard deviation over seeds, brackets the 95 % interval (bootstrap; exact "
        f"where nearly all pairs end alike).{PAPER_CAPTION if reference == PAPER_REFERENCE else ''}"
    )


def read_history(name: str, file: Path) -> pd.DataFrame:
    """Loss history of one finetune, a row an update."""
    base, adaptation, seed = name.split("/")
    history = pd.DataFrame(read_rows(file))
    for place, (column, value) in enumerate(
        {"base": base, "adaptation": adaptation, "seed": seed}.items()
    ):
        history.insert(place, column, value)
    return history


if __name__ == "__main__":
    with building(snakemake.params.node, snakemake.log[0]) as job:  # noqa: F821
        # Of a finetune only its history is read: hashing its weights would take minutes at 7B.
        file = HISTORY if job.settings["table"] == "loss" else None
        inputs = {name: job.read(name, file) for name in job.upstream}
        calibration = inputs.pop("calibration", None)
        build_table(inputs, job.data, **job.settings, calibration=calibration)
