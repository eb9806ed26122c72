"""Rank the real response to each instruction against random ones, under a model."""

from dataclasses import asdict

from implicit_tuning.analysis.ranking import RankingReport, RankingSettings, rank
from implicit_tuning.models.chat import ChatFormat
from implicit_tuning.nodes.job import Job, building


def rank_node(job: Job) -> RankingReport:
    """Rank as the node's settings say."""
    return rank(
        model=job.read("model"),
        pairs=job.read("pairs", "rows.jsonl"),
        destination=job.data,
        chat_format=ChatFormat(**job.settings["chat"]),
        settings=RankingSettings(**job.settings["ranking"]),
    )


if __name__ == "__main__":
    with building(snakemake.params.node, snakemake.log[0]) as job:  # noqa: F821
        job.facts.update(asdict(rank_node(job)))
