"""Compare a run's outputs with its reference's, through alpaca-eval, under the chosen judge."""

from implicit_tuning.artifact import Job, building
from implicit_tuning.judging.alpaca import compare, write_comparison
from implicit_tuning.judging.judge import Judge
from implicit_tuning.judging.length_control import LengthControl
from implicit_tuning.judging.making import Needs, make_judge
from implicit_tuning.logs import show_messages
from implicit_tuning.reading import read_rows


def judge_node(job: Job) -> dict:
    """Judge as the node's settings say; verdicts already given are taken from the cache."""
    comparison = compare(
        outputs=list(read_rows(job.read("outputs", "outputs.jsonl"))),
        references=list(read_rows(job.read("references", "outputs.jsonl"))),
        judge=judge_of(job),
        cache=job.cache,
        max_failed=job.settings["comparison"]["max_failed"],
        both_orders=job.settings["comparison"]["both_orders"],
        length_control=length_control(job),
    )
    write_comparison(comparison, job.data)
    return comparison.summary


def judge_of(job: Job) -> Judge:
    """The node's judge."""

    def truths() -> dict:
        rows = read_rows(job.read("instructions", "instructions.jsonl"))
        return {row["instruction"]: row["truth"] for row in rows}

    needs = Needs(
        truths=truths,
        model=lambda: job.read("judge"),
        chat=job.settings.get("chat", {}),
        spending=job.cache.parents[1] / "spending",  # one for all comparisons of these results
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
