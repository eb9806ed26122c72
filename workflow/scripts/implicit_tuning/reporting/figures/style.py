"""The look of all figures, and their files: .png, .svg and the plotted numbers as .csv.

Colors are those of Okabe and Ito, which people with color-blindness can tell apart. The bytes are
deterministic: no dates, no random ids.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, YELLOW, BLACK = "#56B4E9", "#CC79A7", "#F0E442", "#000000"
GREY = "#595959"
LINE_COLORS = (BLACK, BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE, YELLOW)
LINE_STYLES = ("-", "--", ":")
PANEL_WIDTH = 4.8  # inches
# For `mpl.rc_context`, around all that draws.
STYLE: Any = {"font.size": 9, "svg.hashsalt": "implicit-tuning", "svg.fonttype": "none"}


def panels(count: int, height: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """Returns a figure and its `rows` × `count` panels, row by row, with common axes.

    `height` is that of a row of panels, in inches.
    """
    size = (1.2 + PANEL_WIDTH * count, height * rows)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, count, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, list(grid.flat)


def line_look(number: int) -> tuple[str, str]:
    """Returns color and style of the line with this number; no two of the first 24 are alike."""
    style = LINE_STYLES[number // len(LINE_COLORS) % len(LINE_STYLES)]
    return LINE_COLORS[number % len(LINE_COLORS)], style


def bases_of(table: pd.DataFrame, stem: str) -> Sequence[str]:
    """The bases of a table, a panel each. Raises ValueError when there is nothing to draw."""
    if table.empty:
        raise ValueError(f"table {stem!r} has no rows: there is nothing to draw")
    return list(table["base"].unique())


def finish(figure: Figure, folder: Path, stem: str, label: str) -> None:
    """Writes `<stem>.png` and `<stem>.svg`; `label` says above them what kind of result it is."""
    if label:
        figure.suptitle(label, fontsize=9, color=GREY, style="italic")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{stem}.png", dpi=150)
    figure.savefig(folder / f"{stem}.svg", metadata={"Date": None})


def write_csv(frame: pd.DataFrame, folder: Path, stem: str, float_format: str = "%.2f") -> None:
    """Writes the plotted numbers as `<stem>.csv`."""
    folder.mkdir(parents=True, exist_ok=True)
    csv = frame.to_csv(index=False, float_format=float_format, lineterminator="\n")
    (folder / f"{stem}.csv").write_text(csv, encoding="utf-8", newline="\n")
