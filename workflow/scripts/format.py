"""Build messages (training) or instructions (evaluation) from the upstream rows of a data set."""

from dataclasses import asdict
from pathlib import Path

from implicit_tuning.data.formatting import (
    Conversations,
    FormatReport,
    Instructions,
    Rephrase,
    format_evaluation,
    format_training,
)
from implicit_tuning.nodes.job import Job, building


def format_dataset(
    source: Path,
    destination: Path,
    kind: str,
    formatter: str,
    rows: int | None,
    instructions: Instructions,
    max_characters: int | None,
    rephrase: Rephrase | None,
    exactly: bool,
) -> FormatReport:
    """Format a source file.

    Args:
        source: the upstream file, or the data folder of its download, which holds just that file.
        destination: folder for the files.
        kind: "training" or "evaluation".
        formatter: module in implicit_tuning/data/formatters.
        rows: usable rows to take, in upstream order; None takes all.
        instructions: what stands in the user turns: "given", "blank" or "random".
        max_characters: longer evaluation instructions are left out; None takes all.
        rephrase: gives responses that restate their instruction other words; None leaves them.
        exactly: whether fewer usable rows than `rows` are an error.
    """
    file = next(source.iterdir()) if source.is_dir() else source
    if kind == "evaluation":
        return format_evaluation(file, formatter, rows, destination, max_characters)
    return format_training(file, formatter, rows, instructions, destination, rephrase, exactly)


def rephrase_of(job: Job) -> Rephrase | None:
    """The rephrasing that the node's settings ask for; its counts go into the job's facts."""
    if "rephrase" not in job.settings:
        return None
    # Imported here, so that no other data set needs what a rewriter imports.
    from implicit_tuning.data.rephrasing import rephrase
    from implicit_tuning.data.rewriters.kinds import make_rewriter

    settings = job.settings["rephrase"]
    rewriter = make_rewriter(settings, job.runtime, job.spending)
    job.facts["rewriter_id"] = rewriter.rewriter_id

    def apply(conversations: Conversations) -> Conversations:
        assert job.cache is not None  # a node that rephrases has one
        rephrased, report = rephrase(
            conversations, rewriter, settings["threshold"], job.cache, job.earlier_caches
        )
        job.facts["rephrase"] = asdict(report)
        return rephrased

    return apply


if __name__ == "__main__":
    with building(snakemake.params.node, snakemake.log[0]) as job:  # noqa: F821
        named = ("kind", "formatter", "rows", "instructions", "max_characters")
        options = {key: job.settings[key] for key in named}
        options |= {"rephrase": rephrase_of(job), "exactly": "exactly" in job.settings}
        report = format_dataset(job.read("source"), job.data, **options)
        job.facts.update(asdict(report))
