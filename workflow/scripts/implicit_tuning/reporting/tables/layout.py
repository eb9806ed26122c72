"""What a table is, and its files.

Columns: a measured number `x` is followed by its standard deviation over seeds `x_std` (where it is
a mean over seeds), its 95 % interval `x_low`, `x_high`, and where it was tested the p-value `x_p`
and the one corrected for the number of comparisons, `x_p_holm`. Counts are whole numbers. An empty
cell has no value, and a note or the caption says why.
"""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pandas as pd

# What the column `seed` says on the row of a mean over seeds.
MEAN = "mean"
# In this order behind the number that they belong to.
PARTS = ("_std", "_low", "_high", "_p", "_p_holm")
P_DECIMALS = 4
# Columns of numbers that others published, as they did: without intervals.
PUBLISHED = "paper_"
# Columns that stay below this are ratios and the like: one decimal would hide them.
SMALL = 5.0
EMPTY = "-"


@dataclass(frozen=True)
class Table:
    """A table and what stands above it.

    `frame` has a row a line, with numbers unrounded. `caption` is one paragraph of Markdown.
    `extra` has further tables by name, such as the points behind a figure. `markdown`, if given,
    replaces the table under the caption, for rows that do not read well (long texts). `decimals`
    are those of the .csv; p-values have four.
    """

    frame: pd.DataFrame
    caption: str
    extra: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    markdown: str | None = None
    decimals: int = 2


class Measured(Protocol):
    """A number with its interval; `std` over seeds is None where it has none."""

    @property
    def value(self) -> float: ...
    @property
    def std(self) -> float | None: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


def measured(name: str, number: Measured | None) -> dict[str, float]:
    """Returns the cells of a number: itself, `_std`, `_low` and `_high`; NaN where there is none."""
    parts = ("value", "std", "low", "high")
    values = [getattr(number, part, None) for part in parts]
    columns = (name, *(f"{name}_{part}" for part in parts[1:]))
    return {
        column: float("nan") if value is None else value
        for column, value in zip(columns, values, strict=True)
    }


def counted(count: int, noun: str) -> str:
    """Returns a number with its noun, `1 seed` or `3 seeds`."""
    return f"{count} {noun}{'s' * (count != 1)}"


def write_table(table: Table, folder: Path, stem: str) -> None:
    """Writes `<stem>.csv`, `<stem>-<name>.csv` of each extra, and `<stem>.md` for reading.

    The Markdown has each number with its spread and interval in one cell, `43.3 ± 1.1 [40.1, 46.2]`.
    Raises ValueError for a measured number without its interval.
    """
    _require_intervals(table.frame)
    folder.mkdir(parents=True, exist_ok=True)
    frames = {stem: table.frame}
    frames |= {f"{stem}-{name}": frame for name, frame in table.extra.items()}
    for name, frame in frames.items():
        text = _csv_of(_rounded(frame, table.decimals))
        (folder / f"{name}.csv").write_text(text, encoding="utf-8", newline="\n")
    body = table.markdown
    if body is None:
        body = readable(table.frame).to_markdown(index=False, disable_numparse=True)
    text = f"{table.caption}\n\n{body}\n"
    (folder / f"{stem}.md").write_text(text, encoding="utf-8", newline="\n")


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the table as texts: each number joined with its spread and interval.

    p-values stand in a column of their own, the corrected one in parentheses; a column without any
    value is left out. Works on the frame of a table and on one that was read from its .csv.
    """
    columns = {}
    for column in frame.columns:
        if _owner(column, frame) is not None or (len(frame) and frame[column].isna().all()):
            continue
        if any(f"{column}{part}" in frame for part in PARTS):
            columns[column] = _with_intervals(frame, column)
            if f"{column}_p" in frame:
                columns[f"p of {column} (Holm)"] = _p_values(frame, column)
        else:
            columns[column] = _texts(frame[column])
    return pd.DataFrame(columns, index=frame.index)


def _require_intervals(frame: pd.DataFrame) -> None:
    # A column of texts that no row has is one of missing numbers to pandas.
    measured = frame.dropna(axis="columns", how="all").select_dtypes("float")
    for column in measured.columns:
        complete = {f"{column}_low", f"{column}_high"} <= set(frame)
        published = column.startswith(PUBLISHED)
        if _owner(column, frame) is None and not complete and not published:
            raise ValueError(
                f"column {column!r} has numbers without an interval: add {column}_low and "
                f"{column}_high, or make it whole numbers (Int64) if it counts"
            )


def _owner(column: str, frame: pd.DataFrame) -> str | None:
    """The number whose spread, interval end or p-value a column is, None for all other columns."""
    owners = (column.removesuffix(part) for part in PARTS if column.endswith(part))
    return next((owner for owner in owners if owner in frame), None)


def _rounded(frame: pd.DataFrame, decimals: int) -> pd.DataFrame:
    """Returns the frame with its floats as texts of fixed decimals, empty where there is none."""
    texts = {}
    for column in frame.select_dtypes("float").columns:
        is_p = column.endswith(("_p", "_p_holm")) and _owner(column, frame) is not None
        places = P_DECIMALS if is_p else decimals
        texts[column] = ["" if pd.isna(x) else _number(x, places) for x in frame[column]]
    return frame.assign(**texts)


def _csv_of(frame: pd.DataFrame) -> str:
    text = frame.to_csv(index=False, lineterminator="\n")
    if "\r" not in text:
        return text
    # A lone carriage return is not quoted by itself, and readers would take it for the row's end.
    return frame.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_ALL)


def _with_intervals(frame: pd.DataFrame, column: str) -> list[str]:
    parts = [column, *(f"{column}{part}" for part in PARTS[:3] if f"{column}{part}" in frame)]
    largest = frame[parts].astype(float).abs().max(axis=None)
    decimals = 2 if largest < SMALL else 1
    return [_with_interval(row, column, decimals) for row in frame[parts].to_dict(orient="records")]


def _with_interval(row: Mapping[str, float], column: str, decimals: int) -> str:
    if pd.isna(row[column]):
        return EMPTY
    text = _number(row[column], decimals)
    std, low, high = (row.get(f"{column}{part}", math.nan) for part in PARTS[:3])
    if not pd.isna(std):
        text += f" ± {_number(std, decimals)}"
    if not pd.isna(low):
        text += f" [{_number(low, decimals)}, {_number(high, decimals)}]"
    return text


def _p_values(frame: pd.DataFrame, column: str) -> list[str]:
    corrected = frame.get(f"{column}_p_holm", frame[f"{column}_p"])
    return [
        EMPTY if pd.isna(p) else f"{p:.{P_DECIMALS}f} ({holm:.{P_DECIMALS}f})"
        for p, holm in zip(frame[f"{column}_p"], corrected, strict=True)
    ]


def _number(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text  # no "-0.0"


def _texts(values: pd.Series) -> list[str]:
    """Cells of a column without intervals; counts that a gap made floats are whole again."""
    return [
        EMPTY
        if pd.isna(value)
        else str(int(value))
        if isinstance(value, float) and value.is_integer()
        else str(value)
        for value in values
    ]
