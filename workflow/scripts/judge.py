"""Compare a run's outputs with its reference's, through alpaca-eval, under the chosen judge."""

from pathlib import Path

from implicit_tuning.data.reading import read_rows
from implicit_tuning.judging.alpaca import judge_outputs, write_comparison
from implicit_tuning.judging.judge import Judge, Needs
from implicit_tuning.judging.kinds import make_judge
from implicit_tuning.judging.length_control import LengthControl
from implicit_tuning.nodes.artifact import read_manifest
from implicit_tuning.nodes.job import Job, building
from implicit_tuning.nodes.logs import show_messages


def judge_node(job: Job) -> dict:
    """Judge as the node's settings say; verdicts already given are taken from the cache."""
    comparison = judge_outputs(
        outputs=list(read_rows(job.read("outputs", "outputs.jsonl"))),
        references=list(read_rows(references_of(job))),
        judge=judge_of(job),
        cache=job.cache,
        earlier_caches=job.earlier_caches,
        max_failed=job.settings["comparison"]["max_failed"],
        both_orders=job.settings["comparison"]["both_orders"],
        length_control=length_control(job),
    )
    write_comparison(comparison, job.data)
    return comparison.summary


def references_of(job: Job) -> Path:
    """The answers to compare with: a run's, or those that come with a validation set.

    Raises:
        ValueError: a data set without reference answers.
    """
    folder = Path(job.upstream["references"]["node"])
    if "outputs.jsonl" not in read_manifest(folder)["files"]:
        raise ValueError(
            f"{folder} has no reference answers to choose epochs against: "
            "'epoch_selection.evaluation' must be a data set whose rows have an 'output'"
        )
    return job.read("references", "outputs.jsonl")


def judge_of(job: Job) -> Judge:
    """The node's judge."""

    def truths() -> dict:
        rows = read_rows(job.read("instructions", "instructions.jsonl"))
        return {row["instruction"]: row["truth"] for row in rows if row["truth"] is not None}

    needs = Needs(
        truths=truths,
        model=lambda: job.read("judge"),
        chat=job.settings.get("chat", {}),
        spending=job.spending,
    )
    return make_judge(job.settings["judge"], job.runtime, needs)


def length_control(job: Job) -> LengthControl | None:
    """What the length-controlled win rate needs, if the judge is declared to share its bias."""
    if not job.settings["comparison"]["length_controlled"]:
        return None
    return LengthControl(job.read("df_gamed") if "df_gamed" in job.upstream else None)


if __name__ == "__main__":
    with building(snakemake.params.node, snakemake.log[0]) as job:  # noqa: F821
        show_messages()
        job.facts.update(judge_node(job))
