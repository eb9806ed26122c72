"""Mean win rates with their intervals, as bars."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes

from implicit_tuning.reporting.figures.style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    STYLE,
    VERMILION,
    bases_of,
    finish,
    panels,
    write_csv,
)
from implicit_tuning.reporting.tables.layout import MEAN

SHOWN = ["base", "adaptation", "seed", "win_rate", "win_rate_low", "win_rate_high", "against", "n"]


def draw(
    table: Path, folder: Path, stem: str, label: str, reference: str, controls: Sequence[str] = ()
) -> None:
    """Draws mean win rates (%) with their 95 % intervals as bars, one panel a base.

    Dots show the single seeds, a dashed line marks 50 %, the level of the reference. Writes
    `<stem>.png`, `.svg` and `.csv`. A run with another reference than `reference` says so;
    `controls` are drawn apart, hatched in grey.

    Raises:
        ValueError: a table of several judges, or without rows.
    """
    rows = pd.read_csv(table / f"{stem}.csv", dtype={"base": str, "adaptation": str, "seed": str})
    bases, judges = bases_of(rows, stem), list(rows["judge"].unique())
    if len(judges) != 1:
        raise ValueError(f"a win-rate figure shows one judge, the table has {judges}")
    against = dict(zip(rows["adaptation"], rows["against"], strict=True))
    names = list(against)
    with mpl.rc_context(STYLE):
        figure, axes = panels(len(bases), height=1.6 + 0.28 * len(names))
        for panel, base in zip(axes, bases, strict=True):
            _draw_win_rates(panel, rows[rows["base"] == base], names, controls)
            panel.set_title(base)
        ticks = [_tick(name, against[name], reference, controls) for name in names]
        axes[0].set_yticks(range(len(names)), ticks)
        axes[0].invert_yaxis()
        axes[0].set_xlim(0, max(60.0, float(rows["win_rate_high"].max()) + 12))
        figure.supxlabel(
            f"win rate against the run '{reference}' of the same seed (%), judge: {judges[0]}"
        )
        finish(figure, folder, stem, label)
    write_csv(rows[SHOWN], folder, stem)


def _tick(name: str, against: str, reference: str, controls: Sequence[str]) -> str:
    if name in controls:
        return f"{name} (control)"
    return name if against == reference else f"{name}\n(against {against})"


def _draw_win_rates(
    axes: Axes, rows: pd.DataFrame, names: Sequence[str], controls: Sequence[str]
) -> None:
    means = rows[rows["seed"] == MEAN].set_index("adaptation")
    for place, name in enumerate(names):
        if name not in means.index:
            continue
        mean, low, high = means.loc[name, ["win_rate", "win_rate_low", "win_rate_high"]]
        style: dict[str, Any] = {"color": BLUE}
        if name in controls:
            style = {"facecolor": "white", "edgecolor": GREY, "hatch": "////"}
        axes.barh(place, mean, height=0.7, **style)
        axes.hlines(place, low, high, color=BLACK, linewidth=1.4)
        number = axes.text(max(high, mean) + 2, place, f"{mean:.1f}", va="center", fontsize=8)
        # Numbers near 50 stay readable on the line that marks it.
        number.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})
    seeds = rows[rows["seed"] != MEAN]
    places = [names.index(name) for name in seeds["adaptation"]]
    axes.scatter(seeds["win_rate"], places, s=10, color=ORANGE, edgecolor=BLACK, lw=0.4, zorder=3)
    axes.axvline(50, color=VERMILION, linestyle="--", linewidth=1)
