"""Drift (paper, section 5.2): how often responses carry the mark of a task, near it and far."""

from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes

from implicit_tuning.reporting.figures.style import (
    BLUE,
    GREY,
    ORANGE,
    STYLE,
    bases_of,
    finish,
    panels,
    write_csv,
)

# By region: color and mark, how far from its task's line it stands, and what it is.
REGIONS = {
    "near": (ORANGE, "^", -0.17, "instructions near the task"),
    "far": (BLUE, "o", 0.17, "instructions far from the task"),
}


def draw(table: Path, folder: Path, stem: str, label: str) -> None:
    """Draws a panel a base: shares (%) with their 95 % intervals, a line a task.

    Hollow marks are the shares of the reference run on the same instructions. The arguments are
    those of `figures.similarity.draw`; the table is `<stem>.csv`.
    """
    rows = pd.read_csv(table / f"{stem}.csv", dtype={"base": str, "adaptation": str})
    bases = bases_of(rows, stem)
    marks = dict(zip(rows["adaptation"], rows["mark"], strict=True))
    with mpl.rc_context(STYLE):
        figure, axes = panels(len(bases), height=1.7 + 0.62 * len(marks))
        for panel, base in zip(axes, bases, strict=True):
            for place, task in enumerate(marks):
                chosen = rows[(rows["base"] == base) & (rows["adaptation"] == task)]
                _draw_task(panel, chosen, place)
            panel.set_title(base)
            panel.set_xlabel("responses with the task's mark (%)")
        texts = [f"{task}\n{mark}" for task, mark in marks.items()]
        axes[0].set_yticks(range(len(marks)), texts)
        axes[0].set_ylim(len(marks) - 0.5, -0.5)
        axes[0].set_xlim(-3, 103)
        handles, texts = axes[0].get_legend_handles_labels()
        figure.legend(
            handles[:4],
            texts[:4],
            loc="outside lower center",
            ncols=min(2, len(bases)),
            frameon=False,
        )
        finish(figure, folder, stem, label)
    numbers = ["share", "share_low", "share_high", "reference_share"]
    write_csv(rows[["base", "adaptation", "mark", "region", *numbers, "n"]], folder, stem)


def _draw_task(axes: Axes, rows: pd.DataFrame, place: int) -> None:
    for row in rows.to_dict(orient="records"):
        color, mark, shift, text = REGIONS[row["region"]]
        y = place + shift
        axes.hlines(y, row["share_low"], row["share_high"], color=color, linewidth=1.6)
        axes.plot(row["share"], y, mark, color=color, label=text)
        axes.plot(
            row["reference_share"], y, mark, color=color, markersize=11, fillstyle="none",
            label=f"{text}, reference run",
        )  # fmt: skip
        if row["n"] == 0:
            axes.text(0, y, f"no instruction is {row['region']}", va="center", color=GREY)
