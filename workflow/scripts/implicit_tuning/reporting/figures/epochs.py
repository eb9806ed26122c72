"""The sweep over epochs on the validation set, with the choice marked."""

from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes

from implicit_tuning.reporting.figures.style import (
    STYLE,
    bases_of,
    finish,
    line_look,
    panels,
    write_csv,
)

SHOWN = [
    "base",
    "adaptation",
    "epochs",
    "win_rate",
    "win_rate_low",
    "win_rate_high",
    "chosen",
    "n",
]
# Points of an adaptation stand this share of the smallest step beside the next one's, so that their
# intervals can be told apart.
SHIFT = 0.06


def draw(table: Path, folder: Path, stem: str, label: str) -> None:
    """Draws win rates (%) with their 95 % intervals over epochs, a line an adaptation.

    A ring marks the chosen number of epochs; one panel a base. Writes `<stem>.png`, `.svg` and
    `.csv`. `table` is the data folder of `tables.epochs`.

    Raises:
        ValueError: a table without rows.
    """
    rows = pd.read_csv(table / f"{stem}.csv", dtype={"base": str, "adaptation": str, "chosen": str})
    bases, names = bases_of(rows, stem), list(rows["adaptation"].unique())
    tried = sorted(rows["epochs"].unique())
    step = min((b - a for a, b in pairwise(tried)), default=1)
    with mpl.rc_context(STYLE):
        figure, axes = panels(len(bases), height=3.6)
        for panel, base in zip(axes, bases, strict=True):
            _draw_sweep(panel, rows[rows["base"] == base], names, step * SHIFT)
            panel.set_title(base)
            panel.set_xlabel("epochs (ring: chosen)")
        axes[0].set_xticks(tried)
        axes[0].set_ylabel("win rate on the validation set (%)")
        handles, texts = axes[0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside right center", frameon=False)
        finish(figure, folder, stem, label)
    write_csv(rows[SHOWN], folder, stem)


def _draw_sweep(axes: Axes, rows: pd.DataFrame, names: list[str], shift: float) -> None:
    for number, name in enumerate(names):
        color, style = line_look(number)
        line = rows[rows["adaptation"] == name].sort_values("epochs")
        places = line["epochs"] + (number - (len(names) - 1) / 2) * shift
        axes.plot(places, line["win_rate"], style, color=color, marker=".", label=name)
        low, high = line["win_rate_low"], line["win_rate_high"]
        axes.vlines(places, low, high, color=color, linewidth=0.9, alpha=0.6)
        chosen = line["chosen"] == "yes"
        axes.scatter(
            places[chosen], line.loc[chosen, "win_rate"], s=80, facecolor="none", edgecolor=color,
            linewidth=1.5, zorder=3,
        )  # fmt: skip
