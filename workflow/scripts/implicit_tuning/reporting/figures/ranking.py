"""Response ranking: how often the real response outscores a random one."""

from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes

from implicit_tuning.reporting.figures.style import (
    BLACK,
    BLUE,
    STYLE,
    VERMILION,
    bases_of,
    finish,
    panels,
    write_csv,
)

CHANCE = 50.0
MARGIN = 3.0  # percent, on both sides of what is drawn
SHOWN = ["base", "adaptation", "ranked_right", "ranked_right_low", "ranked_right_high", "n"]


def draw(table: Path, folder: Path, stem: str, label: str) -> None:
    """Draws each adaptation's percentage as a dot with its interval, one panel a base.

    `table` is the data folder of `tables.ranking`. Writes `<stem>.png`, `.svg` and `.csv`.

    Raises:
        ValueError: the table has no rows.
    """
    frame = pd.read_csv(table / f"{stem}.csv", dtype={"base": str, "adaptation": str})
    bases = bases_of(frame, stem)
    names = list(frame["adaptation"].unique())
    with mpl.rc_context(STYLE):
        figure, axes = panels(len(bases), height=1.4 + 0.3 * len(names))
        for panel, base in zip(axes, bases, strict=True):
            _draw_dots(panel, frame[frame["base"] == base], names)
            panel.set_title(base)
        axes[0].set_yticks(range(len(names)), names)
        axes[0].set_ylim(len(names) - 0.5, -0.5)
        axes[0].set_xlim(
            min(CHANCE, frame["ranked_right_low"].min()) - MARGIN,
            min(100.0, max(CHANCE, frame["ranked_right_high"].max())) + MARGIN,
        )
        figure.supxlabel(
            "real response likelier than a random one (% of comparisons; dashed: chance)"
        )
        finish(figure, folder, stem, label)
    write_csv(frame[SHOWN], folder, stem)


def _draw_dots(axes: Axes, rows: pd.DataFrame, names: list[str]) -> None:
    places = [names.index(name) for name in rows["adaptation"]]
    axes.axvline(CHANCE, color=VERMILION, linestyle="--", linewidth=1)
    axes.hlines(
        places, rows["ranked_right_low"], rows["ranked_right_high"], color=BLACK, linewidth=1.4
    )
    axes.scatter(rows["ranked_right"], places, s=16, color=BLUE, edgecolor=BLACK, lw=0.6, zorder=3)
    for place, row in zip(places, rows.itertuples(), strict=True):
        axes.annotate(
            f"{row.ranked_right:.1f}",
            (row.ranked_right, place),
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
