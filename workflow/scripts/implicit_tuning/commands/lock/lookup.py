"""What the hub has under a revision: commit, files and sha256, for the lock file."""

import collections
import difflib
import importlib
import itertools
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from implicit_tuning.data.rows import UnusableRow
from implicit_tuning.models import adapters
from implicit_tuning.nodes.digests import MODEL_FILES, file_sha256
from implicit_tuning.remote.lockfile import LockError, Pin, PinnedFile

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

    from implicit_tuning.remote.hub import HubPlace

# The modules of a sentence-transformers model: 1_Pooling, 2_Normalize, ...
MODULE_FOLDER = re.compile(r"\d+_\w+")
WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
WEIGHTS_INDEX = "model.safetensors.index.json"


def resolve_dataset(
    repo: str, revision: str, file: str, formatter: str | None, rows: int | None, streamed: bool
) -> Pin:
    """Look up one file of a data set on the hub.

    Args:
        revision: branch, tag or commit.
        formatter: module of implicit_tuning.data.formatters; asked only about a streamed file.
        rows: usable records that a streamed file must give.
        streamed: pin the first rows of the file, as many as the formatter needs; the rest of it is
            not fetched.

    Raises:
        LockError: no such file, or `streamed` without a formatter and rows.
        HubFailed: no access, no such repository or revision, or hub out of reach.
    """
    from implicit_tuning.remote.hub import HubPlace, list_files

    commit, files = list_files(HubPlace("datasets", repo, revision))
    if file not in files:
        close = difflib.get_close_matches(file, files, n=3, cutoff=0.3)
        raise LockError(
            f"{repo} has no file '{file}' at {revision}; did you mean {', '.join(close) or files}?"
        )
    place = HubPlace("datasets", repo, commit, file)
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
    from implicit_tuning.remote.hub import HubPlace, list_files

    commit, files = list_files(HubPlace("models", repo, revision))
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
    return Pin(commit, {n: _pin_file(HubPlace("models", repo, commit, n), files[n]) for n in names})


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


def _pin_file(place: "HubPlace", listed: "RepoSibling") -> PinnedFile:
    """Large files are listed with their sha256; small ones are fetched to be hashed."""
    if listed.lfs is not None:
        return PinnedFile(listed.lfs.sha256, listed.lfs.size)
    from implicit_tuning.remote.hub import download

    with tempfile.TemporaryDirectory() as folder:
        fetched = Path(folder, "file")
        download(place, fetched)
        return PinnedFile(file_sha256(fetched), fetched.stat().st_size)


def _pin_first_rows(place: "HubPlace", formatter: str, wanted: int) -> PinnedFile:
    from implicit_tuning.remote.fetching import stream_rows, write_rows

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
    module = importlib.import_module(f"implicit_tuning.data.formatters.{formatter}")
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
