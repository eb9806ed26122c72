"""Fetch the source of a data set: a pinned file of the hub or of the web, or one that the model
organism writes."""

from implicit_tuning.nodes.job import Job, building


def download(job: Job) -> None:
    """Write the source's one file into the node's data."""
    # Imported in each step, so that no kind of source needs what another imports.
    if "organism" in job.settings:
        _write_organism(job)
    elif "url" in job.settings:
        _fetch_from_web(job)
    else:
        _fetch_from_hub(job)


def _write_organism(job: Job) -> None:
    from implicit_tuning.organism.rows import write_source

    write_source(job.settings["organism"], job.data)


def _fetch_from_web(job: Job) -> None:
    from implicit_tuning.nodes.digests import file_sha256
    from implicit_tuning.remote.web import FetchFailed, fetch_url, file_name

    address, sha256 = job.settings["url"]["address"], job.settings["url"]["sha256"]
    file = job.data / file_name(address)
    fetch_url(address, file)
    found = file_sha256(file)
    if found != sha256:
        raise FetchFailed(
            f"{address} has sha256 {found}, but {sha256} is pinned: look at what changed, and "
            "correct 'sha256' of its entry or give a local 'path'"
        )


def _fetch_from_hub(job: Job) -> None:
    from implicit_tuning.remote.fetching import fetch_dataset
    from implicit_tuning.remote.lockfile import NOT_LOCKED, LockError, PinnedFile

    if not job.runtime:
        raise LockError(NOT_LOCKED.format(job.settings["hub"]["repo"]))
    fetch_dataset(
        **job.settings["hub"],
        pinned=PinnedFile(**job.runtime),
        destination=job.data,
        partial=job.partial,
    )


if __name__ == "__main__":
    with building(snakemake.params.node, snakemake.log[0]) as job:  # noqa: F821
        download(job)
