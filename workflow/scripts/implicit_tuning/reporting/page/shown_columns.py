"""Which columns of a table the report shows, and what it says once in place of the others."""

from dataclasses import dataclass
from itertools import groupby

import pandas as pd
from pandas.api.types import is_numeric_dtype

from implicit_tuning.reporting.tables.layout import EMPTY, readable

# Where one thing stands in all cells that are not empty, the caption says it.
SAID_IN_CAPTION = ("compared_with", "n_comparisons")
# A longer text is no part of a row's name, and may be wrapped.
LONGEST_NAME = 40  # characters
# Between the parts of a text that several rows may have in common.
BETWEEN = "; "
BELOW = "see below"


@dataclass(frozen=True)
class Shown:
    """A table as texts.

    Attributes:
        names: what names each row, also where that is no column.
        groups: the base that heads each row and its neighbours, empty where a column or `common`
            says it.
        common: what a column says in every row, instead of the column.
        shared: what all texts of a column say besides, instead of each of them.
    """

    texts: pd.DataFrame
    names: list[str]
    groups: list[str]
    common: dict[str, str]
    shared: dict[str, str]


def shown(frame: pd.DataFrame) -> Shown:
    """A table as the report shows it, from its .csv."""
    texts = readable(frame)
    names = _names(frame, texts)
    common = _common(frame, texts)
    present = [column for column in SAID_IN_CAPTION if column in texts]
    said = [name for name in present if texts.loc[texts[name] != EMPTY, name].nunique() <= 1]
    texts = texts.drop(columns=[*common, *said])
    texts, shared = _shared_parts(frame, texts)
    groups = _groups(frame, texts)
    if any(groups):
        texts = texts.drop(columns="base")
    return Shown(texts, names, groups, common, shared)


def kinds_of(frame: pd.DataFrame, texts: pd.DataFrame) -> list[str]:
    """Kind of the cells of each column: "header", "number" or "text".

    What stands before the first number names the row.
    """
    numeric = [column not in frame or is_numeric_dtype(frame[column]) for column in texts]
    first = numeric.index(True) if True in numeric else 1
    return [
        "number" if number else "header" if place < first else "text"
        for place, number in enumerate(numeric)
    ]


def _names(frame: pd.DataFrame, texts: pd.DataFrame) -> list[str]:
    """What names each row, also where it is the same for all of them."""
    kinds = kinds_of(frame, texts)
    headers = texts[[name for name, kind in zip(texts, kinds, strict=True) if kind == "header"]]
    return [
        " · ".join(text for text in row if len(text) <= LONGEST_NAME)
        for row in headers.itertuples(index=False)
    ]


def _common(frame: pd.DataFrame, texts: pd.DataFrame) -> dict[str, str]:
    """Columns of text that say one thing in all of several rows, and what; numbers stay links."""
    if len(texts) == 1:
        return {}
    kinds = dict(zip(texts.columns, kinds_of(frame, texts), strict=True))
    same = [name for name in kinds if kinds[name] != "number" and texts[name].nunique() == 1]
    headers = [name for name in kinds if kinds[name] == "header"]
    if set(headers) <= set(same):  # one must name the rows
        same = [name for name in same if name not in headers]
    return {column: texts[column].iloc[0] for column in same}


def _shared_parts(frame: pd.DataFrame, texts: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """The texts without the parts that all of a column have in common, and these by column.

    A column keeps them if its rows would have nothing else to say.
    """
    kinds = kinds_of(frame, texts)
    shared = {}
    for column in [name for name, kind in zip(texts, kinds, strict=True) if kind == "text"]:
        cells = [text.split(BETWEEN) for text in texts[column]]
        given = [cell for cell in cells if cell != [EMPTY]]
        parts = [part for part in given[0] if all(part in cell for cell in given)] if given else []
        own = [[part for part in cell if part not in parts] for cell in cells]
        if len(given) < 2 or not parts or not any(set(cell) - {EMPTY} for cell in own):
            continue
        shared[column] = BETWEEN.join(parts)
        # Among empty cells, one that had a text goes on saying so.
        nothing = EMPTY if len(given) == len(cells) else BELOW
        texts = texts.assign(**{column: [BETWEEN.join(cell) or nothing for cell in own]})
    return texts, shared


def _groups(frame: pd.DataFrame, texts: pd.DataFrame) -> list[str]:
    """Base of each row where the rows of each stand together and have other names too."""
    names_rows = kinds_of(frame, texts).count("header") > 1
    if "base" not in texts or not names_rows:
        return [""] * len(texts)
    bases = list(texts["base"])
    together = len(list(groupby(bases))) == len(set(bases))
    return bases if together else [""] * len(bases)
