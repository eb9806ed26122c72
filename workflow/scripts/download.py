"""Fetch the source of a data set: a pinned hub file, or one that the model organism writes."""

from collections.abc import Mapping
from pathlib import Path

from implicit_tuning.artifact import building


def download(data: Path, organism: str | None = None, hub: Mapping | None = None) -> None:
    """Write the source's file into `data`.

    Args:
        data: folder for the one file.
        organism: name of a source of the model organism.
        hub: repo, revision, file and sha256 of a data set on the Hugging Face hub.
    """
    # Imported here, so that neither kind of source needs what the other imports.
    if organism is not None:
        from implicit_tuning.organism.rows import write_source

        write_source(organism, data)
    else:
        from implicit_tuning.sources import fetch_hub

        fetch_hub(**hub, destination=data)


if __name__ == "__main__":
    with building(snakemake.params.node, snakemake.log[0]) as job:  # noqa: F821
        download(job.data, **job.settings)
