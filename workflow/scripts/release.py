"""Give up the weights of a checkpoint that every node that loads them has used."""

from pathlib import Path

from implicit_tuning.nodes.artifact import release


def release_checkpoint(folder: Path, log: Path) -> None:
    """Delete the weights in a finetune's folder and say how much that freed."""
    log.write_text(f"gave up {release(folder) / 1e6:.1f} MB of weights in {folder}\n")


if __name__ == "__main__":
    release_checkpoint(Path(snakemake.params.folder), Path(snakemake.log[0]))  # noqa: F821
