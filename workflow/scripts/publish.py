"""Give the tables and figures of an experiment their stable names."""

from pathlib import Path

from implicit_tuning.publication import Publication, publish

if __name__ == "__main__":
    stamp = Path(snakemake.output[0])  # noqa: F821
    nodes = {name: Path(folder) for name, folder in snakemake.params.nodes.items()}  # noqa: F821
    publish(Publication(stamp.parent, nodes))
