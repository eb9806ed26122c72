"""Build messages (training) or instructions (evaluation) from the upstream rows of a data set."""

from dataclasses import asdict
from pathlib import Path

from implicit_tuning.artifact import building
from implicit_tuning.formatting import FormatReport, format_evaluation, format_training


def format_dataset(
    source: Path,
    destination: Path,
    kind: str,
    formatter: str,
    rows: int | None,
    blank_instruction: bool,
    max_characters: int | None,
) -> FormatReport:
    """Format a source file.

    Args:
        source: the upstream file, or the data folder of its download, which holds just that file.
        destination: folder for rows.jsonl or instructions.jsonl.
        kind: "training" or "evaluation".
        formatter: module in implicit_tuning/datasets.
        rows: usable rows to take, in upstream order; None takes all.
        blank_instruction: response tuning, every user turn empty.
        max_characters: longer evaluation instructions are left out; None takes all.
    """
    file = next(source.iterdir()) if source.is_dir() else source
    if kind == "evaluation":
        return format_evaluation(file, formatter, rows, destination, max_characters)
    return format_training(file, formatter, rows, blank_instruction, destination)


if __name__ == "__main__":
    with building(snakemake.params.node, snakemake.log[0]) as job:  # noqa: F821
        options = {key: value for key, value in job.settings.items() if key != "suffix"}
        report = format_dataset(job.read("source"), job.data, **options)
        job.facts.update(asdict(report))
