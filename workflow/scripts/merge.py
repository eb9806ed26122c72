"""Merge a peft adapter into its base: one model folder, in place of two."""

from dataclasses import asdict

from implicit_tuning.models.merging import MergeReport, merge
from implicit_tuning.nodes.job import Job, building


def merge_node(job: Job) -> MergeReport:
    """Merge as the node's settings say."""
    return merge(
        base=job.read("base"),
        adapter=job.read("adapter"),
        destination=job.data,
        dtype=job.settings["dtype"],
        repo=job.runtime["repo"],
    )


if __name__ == "__main__":
    with building(snakemake.params.node, snakemake.log[0]) as job:  # noqa: F821
        job.facts.update(asdict(merge_node(job)))
