"""Compare a run's outputs with its reference's, through alpaca-eval, under the chosen judge."""

from implicit_tuning.artifact import Job, building
from implicit_tuning.digests import source_sha256
from implicit_tuning.judging.alpaca import compare, write_comparison
from implicit_tuning.judging.judge import Judge
from implicit_tuning.reading import read_rows


def judge_node(job: Job) -> dict:
    """Judge as the node's settings say; verdicts already given are taken from the cache."""
    comparison = compare(
        outputs=list(read_rows(job.read("outputs", "outputs.jsonl"))),
        references=list(read_rows(job.read("references", "outputs.jsonl"))),
        judge=make_judge(job),
        cache=job.cache,
        max_failed=job.settings["judge"].get("max_failed", 0),
    )
    write_comparison(comparison, job.data)
    return comparison.summary


def make_judge(job: Job) -> Judge:
    """The judge of the node's kind, imported alone: only some need torch."""
    settings = job.settings["judge"]
    if settings["kind"] == "oracle":
        from implicit_tuning.judging.oracle import OracleJudge

        rows = read_rows(job.read("instructions", "instructions.jsonl"))
        return OracleJudge({row["instruction"]: row["truth"] for row in rows})
    from implicit_tuning.chat import ChatFormat
    from implicit_tuning.judging.mean_logprob import MeanLogprobJudge

    base = job.read("judge")
    chat_format = ChatFormat(**job.settings["chat"])
    return MeanLogprobJudge(base, source_sha256(base), chat_format, settings["batch_size"])


if __name__ == "__main__":
    with building(snakemake.params.node, snakemake.log[0]) as job:  # noqa: F821
        job.facts.update(judge_node(job))
