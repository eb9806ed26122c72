"""Give the tables and figures of an experiment their stable names, and sum up what it took."""

from collections.abc import Mapping
from pathlib import Path

from implicit_tuning.experiment.stable_names import StableNames, write_stable_names
from implicit_tuning.nodes.artifact import BrokenArtifact
from implicit_tuning.reporting.usage import usage_by_stage, write_usage


def give_stable_names(stamp: Path, nodes: Mapping[str, str]) -> None:
    """Copy and link what the nodes hold; write usage.csv and usage.md beside the copies.

    Args:
        stamp: file that will say so; its folder is the experiment's.
        nodes: folder of every node by its name.
    """
    folders = {name: Path(folder) for name, folder in nodes.items()}
    write_usage(usage_by_stage(folders), stamp.parent)
    try:
        write_stable_names(StableNames(stamp.parent, folders), stamp)
    except BrokenArtifact as error:
        raise SystemExit(f"stable names: {error}") from None


if __name__ == "__main__":
    give_stable_names(Path(snakemake.output[0]), snakemake.params.nodes)  # noqa: F821
