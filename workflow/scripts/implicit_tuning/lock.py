"""The lock file (config/lock.yaml): what each revision of the hub that a config names is.

    datasets/openai/gsm8k@main:
      commit: 0123456789abcdef0123456789abcdef01234567
      files:
        main/train-00000-of-00001.parquet: {sha256: 0123..., size: 2306545}

Every plan reads it, so nothing heavy is imported until something is looked up on the hub.
"""

import collections
import difflib
import importlib
import itertools
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

import yaml

from implicit_tuning import adapters
from implicit_tuning.datasets.rows import UnusableRow
from implicit_tuning.nodes.digests import MODEL_FILES, file_sha256
from implicit_tuning.nodes.files import write_atomically
from implicit_tuning.pins import Pin, PinnedFile

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

    from implicit_tuning.hub import Place

HEADER = """\
# What the revisions of the Hugging Face hub that configs name are: commit, and of each file that is
# read sha256 and size in bytes. A streamed file is read no further than `first_rows`, which give
# `records` usable ones, and its digest is that of these rows. Written by `make lock`; downloads are checked against it.
"""
NAME = re.compile(r"(datasets|models)/[^@\s]+@\S+")
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
# The modules of a sentence-transformers model: 1_Pooling, 2_Normalize, ...
MODULE_FOLDER = re.compile(r"\d+_\w+")
WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
WEIGHTS_INDEX = "model.safetensors.index.json"


NOT_LOCKED = "{} is not in config/lock.yaml: run 'make lock' with this CONFIG first"


class LockError(ValueError):
    """The lock file is malformed, or what was asked for cannot be locked."""


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


# --- looking up ---------------------------------------------------------------------------------


def resolve_dataset(
    repo: str, revision: str, file: str, formatter: str | None, rows: int | None, streamed: bool
) -> Pin:
    """Look up one file of a data set on the hub.

    Args:
        revision: branch, tag or commit.
        formatter: module of implicit_tuning.datasets; asked only about a streamed file.
        rows: usable records that a streamed file must give.
        streamed: pin the first rows of the file, as many as the formatter needs; the rest of it is
            not fetched.

    Raises:
        LockError: no such file, or `streamed` without a formatter and rows.
        HubFailed: no access, no such repository or revision, or hub out of reach.
    """
    from implicit_tuning.hub import Place, list_files

    commit, files = list_files(Place("datasets", repo, revision))
    if file not in files:
        close = difflib.get_close_matches(file, files, n=3, cutoff=0.3)
        raise LockError(
            f"{repo} has no file '{file}' at {revision}; did you mean {', '.join(close) or files}?"
        )
    place = Place("datasets", repo, commit, file)
    if not streamed:
        return Pin(commit, {file: _pin_file(place, files[file])})
    if formatter is None or rows is None:
        raise LockError(
            f"{repo}/{file}: 'streamed' needs 'rows', at which to stop, and 'formatter'"
        )
    return Pin(commit, {file: _pin_first_rows(place, formatter, rows)})


def resolve_model(repo: str, revision: str) -> Pin:
    """Look up the files of a model, or of a peft adapter, on the hub that are read: weights in
    safetensors, configuration, tokenizer, and the modules of sentence-transformers.

    Args:
        revision: branch, tag or commit.

    Raises:
        LockError: the repository has no safetensors, or both a model and an adapter.
        HubFailed: no access, no such repository or revision, or hub out of reach.
    """
    from implicit_tuning.hub import Place, list_files

    commit, files = list_files(Place("models", repo, revision))
    if {adapters.CONFIG_FILE, adapters.MODEL_CONFIG_FILE} <= set(files):
        raise LockError(
            f"{repo} has a model and an adapter ({adapters.CONFIG_FILE}) at {revision}, and only one "
            "can be meant: name a revision that has one of them, or give a local 'path'"
        )
    names = [name for name in sorted(files) if _is_read(name)]
    if not any(name.endswith(".safetensors") for name in names):
        raise LockError(
            f"{repo} has no weights in safetensors at {revision}, and pickled ones (.bin, .pth) are "
            "never read: name a revision or a copy that has them, or convert it and give its 'path'"
        )
    return Pin(commit, {n: _pin_file(Place("models", repo, commit, n), files[n]) for n in names})


def _is_read(name: str) -> bool:
    """Whether a file of a model repository is one that loading it reads.

    Weights count under the names that transformers looks for: some repositories have them twice.
    """
    *folders, last = name.split("/")
    if folders and not (len(folders) == 1 and MODULE_FOLDER.fullmatch(folders[0])):
        return False
    if last.startswith(".") or PurePosixPath(last).suffix not in MODEL_FILES:
        return False
    if last.endswith(".safetensors"):
        return last == adapters.WEIGHTS_FILE or WEIGHTS.fullmatch(last) is not None
    return not last.endswith(".index.json") or last == WEIGHTS_INDEX


def _pin_file(place: "Place", listed: "RepoSibling") -> PinnedFile:
    """Large files are listed with their sha256; small ones are fetched to be hashed."""
    if listed.lfs is not None:
        return PinnedFile(listed.lfs.sha256, listed.lfs.size)
    from implicit_tuning.hub import download

    with tempfile.TemporaryDirectory() as folder:
        fetched = Path(folder, "file")
        download(place, fetched)
        return PinnedFile(file_sha256(fetched), fetched.stat().st_size)


def _pin_first_rows(place: "Place", formatter: str, wanted: int) -> PinnedFile:
    from implicit_tuning.sources import stream_rows, write_rows

    try:
        rows = stream_rows(place, lambda rows: _rows_for(rows, formatter, wanted))
    except KeyError as error:
        raise LockError(
            f"{place}: its rows have no column {error}, which formatter '{formatter}' reads: correct "
            "'formatter' or 'file' of its entry"
        ) from None
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder, "rows.jsonl")
        write_rows(rows, written)
        size = written.stat().st_size
        return PinnedFile(file_sha256(written), size, first_rows=len(rows), records=wanted)


def _rows_for(rows: Iterator[dict], formatter: str, wanted: int) -> list[dict]:
    """The rows up to the end of the last record that is wanted, counted as `formatting` does; all
    where the file ends before."""
    module = importlib.import_module(f"implicit_tuning.datasets.{formatter}")
    build = getattr(module, "to_messages", None) or module.to_item
    taken: list[dict] = []
    records = _numbered(rows, taken)
    if hasattr(module, "group"):
        records = module.group(records)
    usable = (number for number, record in records if _is_usable(record, build))
    collections.deque(itertools.islice(usable, wanted), maxlen=0)
    return taken


def _numbered(rows: Iterator[dict], taken: list[dict]) -> Iterator[tuple[int, dict]]:
    for row in rows:
        taken.append(row)
        yield len(taken), row


def _is_usable(record: Mapping, build: Callable[[Mapping], object]) -> bool:
    try:
        build(record)
    except UnusableRow:
        return False
    return True
