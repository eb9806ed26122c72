"""Similarity (paper, section 5.2): style of the response over nearness of the instruction."""

from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes

from implicit_tuning.reporting.figures.style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    STYLE,
    bases_of,
    finish,
    panels,
    write_csv,
)

PANEL_HEIGHT = 2.8  # inches
LINE = ("instruction_similarity", "style", "style_low", "style_high", "reference_style")
# Said, for a file without rows has no types.
TYPES = {"base": str, "adaptation": str, **dict.fromkeys(LINE, float)}
# By region: color, mark and size of the points, and what they are.
POINTS = {
    False: (BLUE, "o", 9, "instruction far from the task"),
    True: (ORANGE, "^", 22, "instruction near the task"),
}


def draw(table: Path, folder: Path, stem: str, label: str) -> None:
    """Draws a panel for each task (rows) and base (columns).

    A point is an instruction, its style the mean over seeds. The line is fitted over instructions
    and has its 95 % band; the dashed one is that of the responses of the reference run. `table` has
    `<stem>.csv`, `<stem>-points.csv` and `<stem>-line.csv`. Writes `<stem>.png`, `.svg` and, with
    the plotted numbers, `.csv`.
    """
    rows, points, lines = (
        pd.read_csv(table / f"{stem}{part}.csv", dtype=TYPES) for part in ("", "-points", "-line")
    )
    bases, tasks = bases_of(rows, stem), list(rows["adaptation"].unique())
    places = [(base, task) for task in tasks for base in bases]
    with mpl.rc_context(STYLE):
        figure, axes = panels(len(bases), PANEL_HEIGHT, rows=len(tasks))
        for panel, (base, task) in zip(axes, places, strict=True):
            chosen, line = (
                frame[(frame["base"] == base) & (frame["adaptation"] == task)]
                for frame in (points, lines)
            )
            if chosen.empty:
                panel.set_axis_off()
                continue
            _draw_panel(panel, chosen, line)
            panel.set_title(f"{task}, {base}")
        for panel in axes[-len(bases) :]:
            panel.set_xlabel("similarity of instruction and task (cosine × 100)")
        for panel in axes[:: len(bases)]:
            panel.set_ylabel("style of the task (cosine × 100)")
        handles, texts = axes[0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside lower center", ncols=2, frameon=False)
        finish(figure, folder, stem, label)
    drawn = pd.concat([points.assign(drawn="point"), lines.assign(drawn="line")])
    write_csv(drawn, folder, stem)


def _draw_panel(axes: Axes, points: pd.DataFrame, line: pd.DataFrame) -> None:
    for near, (color, mark, size, text) in POINTS.items():
        some = points[points["near"] == near]
        x, y = some["instruction_similarity"], some["style"]
        axes.scatter(x, y, s=size, color=color, marker=mark, alpha=0.55, linewidth=0, label=text)
    x, style, low, high, control = (line[name] for name in LINE)
    axes.fill_between(x, low, high, color=BLACK, alpha=0.15, linewidth=0)
    axes.plot(x, style, color=BLACK, linewidth=1.6, label="fitted line, 95 % band")
    axes.plot(x, control, "--", color=BLACK, linewidth=1.2, label="line of the reference run")
    if line.empty:
        axes.text(
            0.5, 0.95, "no line: all equally near",
            transform=axes.transAxes, ha="center", va="top", color=GREY,
        )  # fmt: skip
