"""sha256 of files and folders, remembered so that planning does not read gigabytes each time."""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

from implicit_tuning.nodes.files import write_atomically

logger = logging.getLogger(__name__)

# What a Hugging Face model folder is made of. Notes beside it (README.md) decide no result, and
# pickled weights (.bin, .pt) are never read.
MODEL_FILES = frozenset({".json", ".safetensors", ".model", ".txt", ".jinja"})


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def combined_sha256(digests: Mapping[str, str]) -> str:
    """One sha256 for a set of files: over their names and digests, in the order of names."""
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


class DigestMemory:
    """Digests of sources outside the results, remembered by path, size, mtime and inode.

    Args:
        file: JSON file of the memory; made when first saved.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._known = _read_memory(file)
        self._changed = False

    def of_file(self, path: Path) -> str:
        """sha256 of a file.

        Raises:
            FileNotFoundError: no such file.
        """
        stat = path.stat()
        seen = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        name = str(path.resolve())
        entry = self._known.get(name)
        if entry is None or entry["seen"] != seen:
            entry = self._known[name] = {"seen": seen, "sha256": file_sha256(path)}
            self._changed = True
        return entry["sha256"]

    def of_model(self, folder: Path) -> str:
        """Digest of the files of a model folder that decide results."""
        return combined_sha256({name: self.of_file(p) for name, p in model_files(folder).items()})

    def save(self) -> None:
        """Write what was learned, in one step.

        Where that fails (a full disk, read-only results) the log says so: planning needs no memory.
        """
        if self._changed:
            try:
                write_atomically(self.file, json.dumps(self._known, indent=1, sort_keys=True))
                self._changed = False
            except OSError as error:
                logger.warning("sources will be hashed again next time: %s", error)


def _read_memory(file: Path) -> dict:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        # Only a memory: what it held is hashed again.
        return {}


def model_files(folder: Path) -> dict[str, Path]:
    """The files of a model folder that decide results, by their names in it.

    A model of sentence-transformers has folders in its folder; hidden ones are notes of a download.
    """
    files = {p.relative_to(folder): p for p in sorted(folder.rglob("*")) if p.is_file()}
    return {
        name.as_posix(): path
        for name, path in files.items()
        if path.suffix in MODEL_FILES and not name.as_posix().startswith(".")
    }


def source_sha256(path: Path) -> str:
    """Digest of a source by its bytes alone, for use just before it is read."""
    if path.is_dir():
        return combined_sha256({name: file_sha256(p) for name, p in model_files(path).items()})
    return file_sha256(path)


def judge_identity(kind: str, parameters: object) -> str:
    """Returns `<kind>-<hash>` with the first 12 hex digits of the sha256 of the parameters.

    `parameters` is any JSON value; the order of its keys does not matter. The judge's code is not
    in it: a change of the code that changes verdicts raises the version of the judge's kind.
    """
    canonical = json.dumps(parameters, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return f"{kind}-{hashlib.sha256(canonical.encode()).hexdigest()[:12]}"
