"""Fetch a model from the Hugging Face hub: weights, configuration and tokenizer, all pinned."""

from implicit_tuning.nodes.job import Job, building
from implicit_tuning.remote.fetching import fetch_model
from implicit_tuning.remote.lockfile import NOT_LOCKED, LockError, PinnedFile


def fetch(job: Job) -> None:
    """Write the model's folder as the node's data.

    Raises:
        LockError: nobody has looked up which files those are.
    """
    if not job.runtime["files"]:
        raise LockError(NOT_LOCKED.format(job.settings["repo"]))
    fetch_model(
        repo=job.settings["repo"],
        commit=job.settings["commit"],
        files={name: PinnedFile(**pinned) for name, pinned in job.runtime["files"].items()},
        destination=job.data,
        partial=job.partial,
    )


if __name__ == "__main__":
    with building(snakemake.params.node, snakemake.log[0]) as job:  # noqa: F821
        fetch(job)
