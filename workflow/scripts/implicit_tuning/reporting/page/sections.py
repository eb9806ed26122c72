"""The tables of a report: cells with their origin, captions, and files to download."""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from markupsafe import Markup, escape

from implicit_tuning.reporting.page.inline_svg import drawing
from implicit_tuning.reporting.page.provenance import Provenance
from implicit_tuning.reporting.page.shown_columns import LONGEST_NAME, Shown, kinds_of, shown
from implicit_tuning.reporting.tables.layout import EMPTY, MEAN, readable

# Names of levels are texts, also where they look like numbers.
TEXT_COLUMNS = ("base", "adaptation", "seed", "setting", "against", "compared_with")
COLUMN_WORDS = {"paper_llama2_7b": "paper, Llama-2-7B", "paper_olmo_7b": "paper, OLMo-7B"}
TITLES = {
    "main": "Win rates in full",
    "paper": "Beside the paper",
    "claims": "The paper's claims, tried here",
    "ranking": "Response ranking",
    "similarity": "Similarity to the training task",
    "drift": "Marks of the training task, near it and far from it",
    "epochs": "Choice of epochs",
    "loss": "Training loss",
}
# What the page's line of links says instead; all ablations are one entry.
SHORT_TITLES = {
    "main": "Win rates",
    "claims": "Claims",
    "ranking": "Ranking",
    "similarity": "Similarity",
    "drift": "Marks",
    "epochs": "Epochs",
    "loss": "Loss",
}
ABLATIONS = "ablation"
# Longer tables (points of curves) are for programs: the page has their figure and the file.
MOST_ROWS = 400
# Larger files are linked where the experiment has them, not held in the page.
LARGEST_FILE = 150_000  # bytes
MARKED = re.compile(r"(\*\*[^*]+\*\*|`[^`]+`)")


@dataclass(frozen=True)
class Cell:
    """One cell: `kind` is "header" for what names the row, "number" or "text"; `interval` "[…]"."""

    kind: str
    text: str
    interval: str = ""


@dataclass(frozen=True)
class Row:
    """One line of a table, its name, and the numbers of the nodes that it was made from.

    `group` is the base that heads it and its neighbours, empty where a column or no row says it.
    """

    name: str
    group: str
    cells: list[Cell]
    origin: str


@dataclass(frozen=True)
class Download:
    """A file that the reader can keep: its name and where the page has it."""

    name: str
    link: str


@dataclass(frozen=True)
class Drawing:
    """A figure and its files."""

    markup: Markup
    downloads: list[Download]


@dataclass(frozen=True)
class Section:
    """One table and the figures that were drawn from it.

    Attributes:
        name: of the table's node, without its stage.
        node: number of the table's node.
        columns, rows: the table; no rows when it has more than MOST_ROWS.
        prose: the columns that hold a long text, which may be wrapped.
        common: what a column says in every row, instead of the column.
        shared: what all texts of a column say besides, instead of each of them.
    """

    name: str
    title: str
    caption: Markup
    node: int
    columns: list[str]
    rows: list[Row]
    prose: list[str]
    common: dict[str, str]
    shared: dict[str, str]
    n_rows: int
    downloads: list[Download]
    drawings: list[Drawing]


@dataclass(frozen=True)
class Rate:
    """A mean win rate (%) with its interval, and the numbers of its nodes."""

    cell: Cell
    rate: float
    low: float
    high: float
    origin: str


def read_table(file: Path) -> pd.DataFrame:
    """A table from its .csv; only an empty cell has no value."""
    texts = dict.fromkeys(TEXT_COLUMNS, str)
    return pd.read_csv(file, dtype=texts, keep_default_na=False, na_values=[""])


def section(
    name: str, nodes: Mapping[str, Path], provenance: Provenance, figures: list[str]
) -> Section:
    """A table's part of the page."""
    node = f"table/{name}"
    data = nodes[node] / "data"
    frame = read_table(data / f"{name}.csv")
    table = shown(frame)
    texts = table.texts
    caption = first_paragraph(data / f"{name}.md")
    title = title_of(name, provenance)
    return Section(
        name=name,
        title=title,
        caption=marked_up(caption),
        node=provenance.number(node),
        columns=[_words(column) for column in texts.columns],
        rows=list(_rows(frame, table, node, provenance)) if len(frame) <= MOST_ROWS else [],
        prose=[
            _words(column)
            for column in texts
            if any(len(text) > LONGEST_NAME for text in texts[column])
        ],
        common={_words(column): text for column, text in table.common.items()},
        shared={_words(column): text for column, text in table.shared.items()},
        n_rows=len(frame),
        downloads=downloads(data, "tables"),
        drawings=[_drawing(figure, nodes, title, caption) for figure in figures],
    )


def links(sections: Sequence[Section]) -> dict[str, str]:
    """Entries of the page's line of links by name of the table, all ablations as one."""
    entries: dict[str, str] = {}
    for each in sections:
        if not each.name.startswith(ABLATIONS):
            entries[each.name] = SHORT_TITLES.get(each.name, each.title)
        elif "Ablations" not in entries.values():
            entries[each.name] = "Ablations"
    return entries


def title_of(name: str, provenance: Provenance) -> str:
    """Heading of a table: its own title, that of its kind, or its name in words."""
    own = provenance.manifests[f"table/{name}"]["settings"].get("title")
    return str(own or TITLES.get(name) or name.replace("-", " ").capitalize())


def _drawing(name: str, nodes: Mapping[str, Path], title: str, caption: str) -> Drawing:
    data = nodes[f"figure/{name}"] / "data"
    plain = MARKED.sub(lambda piece: piece[0].strip("*`"), caption)
    described = f"{plain} The drawn numbers can be downloaded below."
    markup = drawing(data / f"{name}.svg", f"figure-{name}", title, described)
    return Drawing(markup, downloads(data, "figures"))


def mean_rates(
    frame: pd.DataFrame, node: str, provenance: Provenance
) -> dict[str, dict[str, Rate]]:
    """Mean win rates by adaptation and base, in the order of the table.

    Raises:
        ValueError: the table has no rows of means over seeds.
    """
    means = frame[frame["seed"] == MEAN]
    if means.empty:
        raise ValueError(f"{node} has no row whose seed is '{MEAN}': it cannot be the headline")
    rates: dict[str, dict[str, Rate]] = {}
    texts = readable(means)["win_rate"]
    for text, row in zip(texts, means.to_dict(orient="records"), strict=True):
        rates.setdefault(row["adaptation"], {})[row["base"]] = Rate(
            cell=_cell("number", text),
            rate=row["win_rate"],
            low=row["win_rate_low"],
            high=row["win_rate_high"],
            origin=_origin(row, node, provenance),
        )
    return rates


def _rows(frame: pd.DataFrame, table: Shown, node: str, provenance: Provenance) -> Iterator[Row]:
    kinds = kinds_of(frame, table.texts)
    texts, records = table.texts.itertuples(index=False), frame.to_dict(orient="records")
    for name, group, values, row in zip(table.names, table.groups, texts, records, strict=True):
        cells = [_cell(kind, text) for kind, text in zip(kinds, values, strict=True)]
        yield Row(name, group, cells, _origin(row, node, provenance))


def _words(column: str) -> str:
    return COLUMN_WORDS.get(column, column.replace("_", " "))


def _cell(kind: str, text: str) -> Cell:
    number, bracket, interval = text.partition(" [") if kind == "number" else (text, "", "")
    # An empty cell came from nowhere.
    kind = "text" if text == EMPTY and kind == "number" else kind
    return Cell(kind, number, bracket[1:] + interval)


def _origin(row: Mapping[str, object], node: str, provenance: Provenance) -> str:
    known = {key: value for key, value in row.items() if not pd.isna(value)}
    return " ".join(map(str, provenance.behind(node, known)))


# --- texts and files ----------------------------------------------------------------------------


def first_paragraph(file: Path) -> str:
    """The caption of a table: all before the first empty line of its Markdown."""
    return file.read_text(encoding="utf-8").partition("\n\n")[0].strip()


def marked_up(text: str) -> Markup:
    """Markdown's **bold** and `code` as HTML; everything else is escaped."""
    pieces = []
    for piece in MARKED.split(text):
        tag = {"**": "strong", "`": "code"}.get(piece[:2] if piece[:1] == "*" else piece[:1])
        if tag and MARKED.fullmatch(piece):
            pieces.append(Markup("<{0}>{1}</{0}>").format(tag, piece.strip("*`")))
        else:
            pieces.append(escape(piece))
    return Markup("").join(pieces)


def downloads(data: Path, folder: str) -> list[Download]:
    """The .csv files of a table or figure, inside the page unless they are large.

    The experiment has copies of them in `folder`, beside the report.
    """
    return [Download(file.name, _link(file, folder)) for file in sorted(data.glob("*.csv"))]


def _link(file: Path, folder: str) -> str:
    content = file.read_bytes()
    if len(content) > LARGEST_FILE:
        return f"{folder}/{file.name}"
    return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(content).decode('ascii')}"
