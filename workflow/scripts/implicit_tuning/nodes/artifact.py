"""An artifact: the folder of a built node, with a manifest of its files, their hashes and its inputs.

    results/nodes/<stage>/<levels>/<key>/
        data/           the files
        manifest.json   their sha256 and size, the config slice, code, versions, upstream
        weights         checkpoints only: exists while they have their weights (see `release`)
        job.log         what the job printed

A job works in a folder of its own beside data/, which is renamed into place when it is whole; the
manifest is written last. So a job killed at any moment leaves nothing that counts as built.
"""

from pathlib import Path

from filelock import FileLock

from implicit_tuning.nodes.digests import file_sha256
from implicit_tuning.nodes.files import read_sealed
from implicit_tuning.nodes.node import RELEASABLE, RELEASED_MARKER, WEIGHTS_MARKER

WEIGHTS_SUFFIX = ".safetensors"


class BrokenArtifact(ValueError):
    """Files of an artifact are missing or differ from its manifest."""


def read_manifest(folder: Path) -> dict:
    """Manifest of a built node.

    Raises:
        BrokenArtifact: there is none, or it is not what was written.
    """
    path = folder / "manifest.json"
    try:
        return read_sealed(path)
    except FileNotFoundError:
        raise BrokenArtifact(f"{path} is missing: the node is not built; run it again") from None
    except ValueError as error:
        raise BrokenArtifact(
            f"{path} is damaged ({error}): run 'make repair' with the same CONFIG"
        ) from None


def find_damage(
    folder: Path, read_bytes: bool, only: str | None = None, released: bool = False
) -> list[str]:
    """What is wrong with an artifact's files, one line each; empty when nothing is.

    Args:
        folder: the node's folder.
        read_bytes: compare sha256 too, not only names and sizes.
        only: look at this file alone.
        released: weights that were given up on purpose (see `release`) do not count as damage.
    """
    files = read_manifest(folder)["files"]
    if only is not None and only not in files:
        return [f"{folder / 'data' / only} is not in the manifest"]
    damage = []
    for name, expected in files.items() if only is None else [(only, files[only])]:
        path = folder / "data" / name
        if not path.is_file():
            if not (released and path.suffix == WEIGHTS_SUFFIX and is_released(folder)):
                damage.append(f"{path} is missing")
        elif path.stat().st_size != expected["size"]:
            damage.append(f"{path} has {path.stat().st_size} bytes instead of {expected['size']}")
        elif read_bytes and file_sha256(path) != expected["sha256"]:
            damage.append(f"{path} has other bytes than its manifest says")
    return damage


def require_whole(
    folder: Path, read_bytes: bool, only: str | None = None, released: bool = False
) -> None:
    """Check an artifact before it is used; the arguments are those of `find_damage`.

    Raises:
        BrokenArtifact: names each damaged file.
    """
    damage = find_damage(folder, read_bytes, only, released)
    if damage:
        raise BrokenArtifact("; ".join(damage) + ": run 'make repair' with the same CONFIG")


def is_released(folder: Path) -> bool:
    """Whether the weights of a checkpoint were given up by `release`."""
    return read_manifest(folder)["stage"] in RELEASABLE and not (folder / WEIGHTS_MARKER).exists()


def release(folder: Path) -> int:
    """Delete the weights of a checkpoint; its manifest, loss history and tokenizer stay.

    The mark goes first: a checkpoint that loses only some files counts as released.

    Returns:
        Bytes that were freed.
    """
    with FileLock(folder / ".lock"):
        (folder / WEIGHTS_MARKER).unlink(missing_ok=True)
        (folder / RELEASED_MARKER).touch()
        weights = list((folder / "data").rglob(f"*{WEIGHTS_SUFFIX}"))
        freed = sum(path.stat().st_size for path in weights)
        for path in weights:
            path.unlink()
    return freed
