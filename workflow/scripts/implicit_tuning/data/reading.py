"""Reading the rows of a local file, one at a time, by its suffix.

    .jsonl          an object a line
    .json           a list of objects
    .csv            a header line, fields of several lines; an empty field is null
    .parquet        by row groups
    .txt .pgn       a line a row, under the column "text", as `datasets` names it

Text is UTF-8, with or without a byte order mark.
"""

import csv
import json
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

# Longest field of a csv; the standard library's own limit is 131,072 characters.
CSV_FIELD_LIMIT = 2**31 - 1
PARQUET_BATCH_ROWS = 1024


class UnreadableSource(ValueError):
    """A file of unknown kind, or whose content is not what its suffix says."""


def read_rows(path: Path) -> Generator[dict, None, None]:
    """Rows of a file, streamed (but for .json, which has to be read whole).

    Raises:
        UnreadableSource: names the file, the line where there is one, and the fix.
        FileNotFoundError: no such file.
    """
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise UnreadableSource(
            f"{path}: unknown kind of file '{path.suffix}'; known are {', '.join(_READERS)}"
        )
    yield from read(path)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines. Only a newline ends a line: JSON strings may hold other separators."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise _not_utf8(path, f"line {number}", error) from None


def _read_json_lines(path: Path) -> Iterator[dict]:
    for number, line in _lines(path):
        if line.strip():
            row = _parse(line, path, f"line {number}")
            yield _object(row, path, f"line {number}")


def _read_json(path: Path) -> Iterator[dict]:
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, "the file", error) from None
    rows = _parse(content, path, "the file")
    if not isinstance(rows, list):
        raise UnreadableSource(
            f"{path}: holds a {type(rows).__name__}, but a .json source is a list of objects; "
            "for an object a line, name it .jsonl"
        )
    for number, row in enumerate(rows, start=1):
        yield _object(row, path, f"entry {number}")


def _parse(text: str, path: Path, where: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}" if where == "the file" else where
        raise UnreadableSource(
            f"{path}, {place}: broken JSON ({error.msg} at character {error.colno}); correct it, "
            "or fetch the file again if it was cut off"
        ) from None


def _object(row: object, path: Path, where: str) -> dict:
    if not isinstance(row, dict):
        raise UnreadableSource(
            f"{path}, {where}: holds a {type(row).__name__}; a row is an object, "
            '{"column": value, ...}'
        )
    return row


def _read_csv(path: Path) -> Iterator[dict]:
    csv.field_size_limit(CSV_FIELD_LIMIT)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        position = reader.reader  # its line_num counts lines that cannot be parsed, too
        try:
            for row in reader:
                _check_fields(row, reader.fieldnames or [], path, position.line_num)
                yield {column: field or None for column, field in row.items()}
        except csv.Error as error:
            raise UnreadableSource(
                f"{path}, line {position.line_num}: broken csv ({error}); correct the quotes "
                "there, or fetch the file again if it was cut off"
            ) from None
        except UnicodeDecodeError as error:
            raise _not_utf8(path, f"after line {position.line_num}", error) from None


def _check_fields(row: dict, columns: Sequence[str], path: Path, line: int) -> None:
    # DictReader puts surplus fields under the key None, and null into missing ones.
    surplus, missing = None in row, None in row.values()
    if surplus or missing:
        raise UnreadableSource(
            f"{path}, line {line}: the row that ends here has {'more' if surplus else 'fewer'} "
            f"fields than the header's {len(columns)}; quote fields that hold commas or line breaks"
        )


def _read_parquet(path: Path) -> Iterator[dict]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(PARQUET_BATCH_ROWS):
                yield from batch.to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise UnreadableSource(f"{path}: broken parquet ({error}); fetch the file again") from None


def _read_text(path: Path) -> Iterator[dict]:
    for _, line in _lines(path):
        yield {"text": line.rstrip("\r\n")}


def _not_utf8(path: Path, where: str, error: UnicodeDecodeError) -> UnreadableSource:
    return UnreadableSource(
        f"{path}, {where}: not UTF-8 ({error.reason}, byte {error.object[error.start]:#04x}); "
        "convert it, e.g. with iconv"
    )


_READERS = {
    ".jsonl": _read_json_lines,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".txt": _read_text,
    ".pgn": _read_text,
}
SUFFIXES = tuple(_READERS)
