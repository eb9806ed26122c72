"""Training losses over updates."""

from collections.abc import Sequence
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


def draw(table: Path, folder: Path, stem: str, label: str, adaptations: Sequence[str]) -> None:
    """Draws training loss (nats a response token) over updates, one panel a base.

    A color an adaptation, in the order of `adaptations`: thin lines are seeds, the thick line is
    their mean. Writes `<stem>.png`, `.svg` and `.csv`. `table` is the data folder of `tables.loss`.

    Raises:
        ValueError: there is nothing to draw.
    """
    columns = {"base": str, "adaptation": str}
    history = pd.read_csv(table / f"{stem}-history.csv", dtype=columns)
    bases = bases_of(history, stem)
    names = [name for name in adaptations if name in set(history["adaptation"])]
    with mpl.rc_context(STYLE):
        figure, axes = panels(len(bases), height=3.6)
        for panel, base in zip(axes, bases, strict=True):
            _draw_losses(panel, history[history["base"] == base], names)
            panel.set_title(base)
            panel.set_xlabel("update")
        axes[0].set_ylabel("training loss (nats a token)")
        handles, texts = axes[0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside right center", frameon=False)
        finish(figure, folder, stem, label)
    write_csv(history, folder, stem, "%.5f")


def _draw_losses(axes: Axes, rows: pd.DataFrame, names: Sequence[str]) -> None:
    for number, name in enumerate(names):
        color, style = line_look(number)
        chosen = rows[rows["adaptation"] == name]
        for _, seed in chosen.groupby("seed"):
            axes.plot(seed["update"], seed["loss"], style, color=color, lw=0.6, alpha=0.5)
        mean = chosen.groupby("update")["loss"].mean()
        axes.plot(mean.index, mean.to_numpy(), style, color=color, linewidth=1.8, label=name)
