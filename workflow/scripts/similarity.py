"""Measure how near a single task lies to each instruction, and how much its run's style shows."""

from dataclasses import asdict

from implicit_tuning.analysis.similarity import SimilarityReport, measure_similarity
from implicit_tuning.nodes.job import Job, building


def similarity_node(job: Job) -> SimilarityReport:
    """Measure as the node's settings say; only a model among the embeddings has a folder."""
    return measure_similarity(
        outputs=job.read("outputs", "outputs.jsonl"),
        reference_outputs=job.read("reference_outputs", "outputs.jsonl"),
        task_rows=job.read("task_rows", "rows.jsonl"),
        reference_rows=job.read("reference_rows", "rows.jsonl"),
        formatter=job.settings["formatter"],
        embedding=job.settings["embedding"],
        embedding_folder=job.read("embedding") if "embedding" in job.upstream else None,
        destination=job.data,
    )


if __name__ == "__main__":
    with building(snakemake.params.node, snakemake.log[0]) as job:  # noqa: F821
        job.facts.update(asdict(similarity_node(job)))
