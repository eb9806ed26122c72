"""The lock file (config/lock.yaml): what each revision of the hub that a config names is.

    datasets/openai/gsm8k@main:
      commit: 0123456789abcdef0123456789abcdef01234567
      files:
        main/train-00000-of-00001.parquet: {sha256: 0123..., size: 2306545}

Every plan reads it; `commands.lock` writes it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import yaml

from implicit_tuning.nodes.files import write_atomically

HEADER = """\
# What the revisions of the Hugging Face hub that configs name are: commit, and of each file that is
# read sha256 and size in bytes. A streamed file is read no further than `first_rows`, which give
# `records` usable ones, and its digest is that of these rows. Written by `make lock`; downloads are checked against it.
"""
NAME = re.compile(r"(datasets|models)/[^@\s]+@\S+")
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
NOT_LOCKED = "{} is not in config/lock.yaml: run 'make lock' with this CONFIG first"


class LockError(ValueError):
    """The lock file is malformed, or what was asked for cannot be locked."""


@dataclass(frozen=True)
class PinnedFile:
    """The bytes that a file must have.

    Attributes:
        first_rows: None for the whole file. Else it is streamed and no further than so many rows,
            and the digest and size are those of these rows as JSON lines (see `sources`).
        records: how many usable records those rows were to give.
    """

    sha256: str
    size: int
    first_rows: int | None = None
    records: int | None = None


@dataclass(frozen=True)
class Pin:
    """What a revision of a repository was when it was looked up.

    `commit` has 40 hexadecimal digits; `files` are by their path in the repository.
    """

    commit: str
    files: Mapping[str, PinnedFile]


def lock_name(kind: Literal["datasets", "models"], repo: str, revision: str) -> str:
    """Name of a revision in the lock file: "datasets/openai/gsm8k@main"."""
    return f"{kind}/{repo}@{revision}"


# --- the file -----------------------------------------------------------------------------------


def read_lock(file: Path) -> dict[str, Pin]:
    """The pins of a lock file, by `lock_name`; none if there is no file.

    Raises:
        LockError: names file, key and fix.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return {}
    except yaml.YAMLError as error:
        reason = str(error).replace("\n", " ")
        raise LockError(f"{file}: no YAML ({reason}): restore it from git") from None
    if not isinstance(content, dict):
        raise LockError(f"{file}: holds a {type(content).__name__}, not entries: restore it")
    problem = next(_problems(content), None)
    if problem is not None:
        raise LockError(f"{file}: {problem}: take the entry out and run 'make lock'")
    return {name: _pin(entry) for name, entry in content.items()}


def write_pins(file: Path, pins: Mapping[str, Pin]) -> None:
    """Add pins to a lock file, in one step.

    Files of a revision that is still the same commit are added to those that it has there; a
    revision that moved to another commit has only the new files.
    """
    known = read_lock(file)
    for name, pin in pins.items():
        earlier = known.get(name)
        kept = earlier.files if earlier is not None and earlier.commit == pin.commit else {}
        known[name] = Pin(pin.commit, {**kept, **pin.files})
    content = {name: _entry(pin) for name, pin in known.items()}
    text = yaml.safe_dump(content, default_flow_style=None, width=1000, allow_unicode=True)
    write_atomically(file, HEADER + (text if content else ""))


def _problems(content: Mapping) -> Iterator[str]:
    for name, entry in content.items():
        if not NAME.fullmatch(str(name)):
            yield f"'{name}' is no key such as datasets/owner/name@revision"
        elif not isinstance(entry, dict) or set(entry) != {"commit", "files"}:
            yield f"{name}: is not made of commit and files"
        elif not COMMIT.fullmatch(str(entry["commit"])):
            yield f"{name}.commit: '{entry['commit']}' is no commit of 40 hexadecimal digits"
        elif not isinstance(entry["files"], dict):
            yield f"{name}.files: holds a {type(entry['files']).__name__}, not files"
        else:
            for path, pinned in entry["files"].items():
                yield from (f"{name}.files.{path}: {p}" for p in _file_problems(path, pinned))


def _file_problems(path: object, pinned: object) -> Iterator[str]:
    parts = PurePosixPath(str(path))
    if parts.is_absolute() or ".." in parts.parts:
        yield "the path leads out of the repository"
    if not isinstance(pinned, dict) or not {"sha256", "size"} <= set(pinned):
        yield "is not made of sha256 and size"
        return
    if not SHA256.fullmatch(str(pinned["sha256"])):
        yield f"sha256 '{pinned['sha256']}' is none of 64 hexadecimal digits"
    for key in set(pinned) - {"sha256"}:
        if (
            key not in ("size", "first_rows", "records")
            or type(pinned[key]) is not int
            or pinned[key] < 0
        ):
            yield f"{key}: '{pinned[key]}' does not belong there"


def _pin(entry: Mapping) -> Pin:
    files = {path: PinnedFile(**pinned) for path, pinned in entry["files"].items()}
    return Pin(entry["commit"], files)


def _entry(pin: Pin) -> dict:
    files = {
        path: {key: value for key, value in asdict(pinned).items() if value is not None}
        for path, pinned in pin.files.items()
    }
    return {"commit": pin.commit, "files": files}
