"""Data set files and models of the Hugging Face hub, at a commit and checked against their sha256.

A file whose first rows alone are wanted is streamed. Its rows are kept as JSON lines in one
spelling (sorted keys, no spaces, ASCII), so that they too have a sha256:

    .txt .pgn       a line a row, under the column "text"
    .jsonl          an object a line
    .parquet        by row groups
"""

import codecs
import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from implicit_tuning.nodes.code import canonical_json
from implicit_tuning.nodes.digests import file_sha256
from implicit_tuning.remote.hub import HubFailed, HubPlace, download, open_file, patiently, stream
from implicit_tuning.remote.lockfile import PinnedFile

PARQUET_BATCH_ROWS = 1024

Rows = Iterator[dict]


def fetch_dataset(
    repo: str, commit: str, file: str, pinned: PinnedFile, destination: Path, partial: Path
) -> Path:
    """Fetch one file of a data set.

    `file` is its path in the repository. It goes to the folder `destination` without its folders;
    the suffix of first rows becomes .jsonl. An interrupted download goes on in the folder
    `partial`, which is removed in the end. Returns the file.

    Raises:
        HubFailed: no access, no such file, hub out of reach, or another content than pinned.
            Nothing is left in `destination`.
    """
    place = HubPlace("datasets", repo, commit, file)
    name = PurePosixPath(file)
    partial.mkdir(parents=True, exist_ok=True)
    if pinned.first_rows is None:
        fetched = partial / name.name
        _fetch(place, pinned, fetched)
    else:
        fetched = partial / f"{name.stem}.jsonl"
        wanted = pinned.first_rows
        write_rows(stream_rows(place, lambda rows: list(itertools.islice(rows, wanted))), fetched)
        _require_pinned(place, pinned, fetched)
    return _hand_over({fetched.name: fetched}, destination, partial)[0]


def fetch_model(
    repo: str, commit: str, files: Mapping[str, PinnedFile], destination: Path, partial: Path
) -> None:
    """Fetch the files of a model, in the folders that they have in the repository.

    An interrupted download goes on in the folder `partial`, which is removed in the end.

    Raises:
        HubFailed: no access, a file that is not there, hub out of reach, or another content than
            pinned. Nothing is left in `destination`; what is whole stays in `partial`.
    """
    for name, pinned in files.items():
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        _fetch(HubPlace("models", repo, commit, name), pinned, partial / name)
    _hand_over({name: partial / name for name in files}, destination, partial)


def _fetch(place: HubPlace, pinned: PinnedFile, target: Path) -> None:
    """Make `target` the pinned file; one that stands from an earlier try is only checked."""
    if not target.exists():
        unfinished = target.with_name(f"{target.name}.incomplete")
        size = unfinished.stat().st_size if unfinished.exists() else 0
        if size > pinned.size:
            unfinished.unlink()
        if size != pinned.size:
            download(place, unfinished)
        unfinished.replace(target)
    _require_pinned(place, pinned, target)


def _require_pinned(place: HubPlace, pinned: PinnedFile, file: Path) -> None:
    """Delete a file that is not the pinned one, so that the next try fetches it anew."""
    size, sha256 = file.stat().st_size, file_sha256(file)
    if (size, sha256) == (pinned.size, pinned.sha256):
        return
    file.unlink()
    rows = "" if pinned.first_rows is None else f"the first {pinned.first_rows} rows of "
    raise HubFailed(
        f"{rows}{place} at {place.revision}: {size} bytes with sha256 {sha256} came, but "
        f"{pinned.size} with {pinned.sha256} are pinned: the file was changed or damaged, and is "
        "not kept. Run again to fetch it anew; if that does not help, look at what changed and pin "
        "it with 'make lock'"
    )


def _hand_over(files: Mapping[str, Path], destination: Path, partial: Path) -> list[Path]:
    """Move whole files into `destination`, which may be on another disk than `partial`."""
    moved = []
    for name, file in files.items():
        (destination / name).parent.mkdir(parents=True, exist_ok=True)
        moved.append(Path(shutil.move(file, destination / name)))
    shutil.rmtree(partial)
    return moved


# --- first rows ---------------------------------------------------------------------------------


def stream_rows(place: HubPlace, take: Callable[[Rows], list[dict]]) -> list[dict]:
    """The rows that `take` takes off the start of a file, of which no more is fetched than needed.

    When the connection breaks, `take` is called anew, with the first row again.

    Raises:
        HubFailed: no access, no such file, hub out of reach, a file of a kind that cannot be
            streamed, or with other content than its suffix says.
    """
    suffix = PurePosixPath(place.file or "").suffix.lower()
    if suffix == ".parquet":
        return patiently(lambda: _take_parquet(place, take), place)
    if suffix not in _LINE_READERS:
        raise HubFailed(
            f"{place}: a file of kind '{suffix}' cannot be streamed, only "
            f"{', '.join(_LINE_READERS)} and .parquet: take 'streamed' out of its entry"
        )
    read = _LINE_READERS[suffix]
    try:
        return stream(place, lambda chunks: take(read(_lines(chunks))))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise HubFailed(f"{place} is no {suffix} file in UTF-8 ({error})") from None


def write_rows(rows: Iterable[Mapping], file: Path) -> None:
    """Write rows as JSON lines, in one spelling.

    Raises:
        HubFailed: a row holds what JSON cannot say, such as a date.
    """
    with file.open("w", encoding="ascii", newline="\n") as output:
        for number, row in enumerate(rows, start=1):
            try:
                output.write(canonical_json(row) + "\n")
            except (TypeError, ValueError) as error:
                raise HubFailed(
                    f"{file.name}, row {number}: {error}; take 'streamed' out of its entry"
                ) from None


def _take_parquet(place: HubPlace, take: Callable[[Rows], list[dict]]) -> list[dict]:
    import pyarrow.parquet

    with open_file(place) as remote:
        try:
            parquet = pyarrow.parquet.ParquetFile(remote)
        except pyarrow.ArrowInvalid as error:
            raise HubFailed(f"{place} is no .parquet file ({error})") from None
        # One row group at a time: over several, pyarrow fetches ahead.
        batches = (
            batch
            for group in range(parquet.num_row_groups)
            for batch in parquet.iter_batches(PARQUET_BATCH_ROWS, row_groups=[group])
        )
        return take(row for batch in batches for row in batch.to_pylist())


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Lines without their ends. Only a newline ends a line, as in `reading`."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    rest = ""
    for chunk in chunks:
        *whole, rest = (rest + decoder.decode(chunk)).split("\n")
        yield from whole
    rest += decoder.decode(b"", final=True)
    if rest:
        yield rest


def _text_rows(lines: Iterable[str]) -> Rows:
    return ({"text": line.removesuffix("\r")} for line in lines)


def _json_rows(lines: Iterable[str]) -> Rows:
    return (json.loads(line) for line in lines if line.strip())


_LINE_READERS = {".txt": _text_rows, ".pgn": _text_rows, ".jsonl": _json_rows}
