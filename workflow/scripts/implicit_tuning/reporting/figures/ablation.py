"""An ablation: win rates over a numeric setting as a line, of named variants as bars."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from implicit_tuning.reporting.figures.style import (
    BLACK,
    BLUE,
    ORANGE,
    STYLE,
    VERMILION,
    bases_of,
    finish,
    panels,
    write_csv,
)

SHOWN = ["base", "adaptation", "setting", "win_rate", "win_rate_low", "win_rate_high", "n", "note"]
BASELINE = "baseline"
# A setting that spans this factor is drawn on a logarithmic axis.
WIDE = 10


def draw(table: Path, folder: Path, stem: str, label: str, title: str, setting: str) -> None:
    """Draws mean win rates (%) with their 95 % intervals, one panel a base.

    Numbers as settings give a line with its band, anything else bars; the baseline is marked.
    Writes `<stem>.png`, `.svg` and `.csv`. `table` is the data folder of a table of
    `tables.ablation`. `setting` says what the settings are, with their unit.

    Raises:
        ValueError: a table without rows.
    """
    texts = {"base": str, "adaptation": str, "setting": str, "note": str}
    rows = pd.read_csv(table / f"{stem}.csv", dtype=texts, keep_default_na=False, na_values=[""])
    bases = bases_of(rows, stem)
    numbers = pd.to_numeric(rows["setting"], errors="coerce")
    is_line = bool(numbers.notna().all()) and numbers.nunique() > 1
    rate = f"win rate against '{', '.join(rows['against'].unique())}' (%)"
    with mpl.rc_context(STYLE):
        if is_line:
            figure, axes = panels(len(bases), height=3.4)
            axes[0].set_ylabel(rate)
            figure.supxlabel(f"{title}: {setting}")
        else:
            figure, axes = panels(len(bases), height=1.4 + 0.3 * rows["adaptation"].nunique())
            figure.supxlabel(f"{title}: {rate}")
        for panel, base in zip(axes, bases, strict=True):
            chosen = rows["base"] == base
            if is_line:
                _draw_line(panel, rows[chosen].assign(setting=numbers[chosen]))
            else:
                _draw_bars(panel, rows[chosen], list(rows["adaptation"].unique()))
            panel.set_title(base)
        if is_line:
            _scale(axes[0], numbers)
        else:
            _name_bars(axes[0], rows)
        finish(figure, folder, stem, label)
    write_csv(rows[SHOWN], folder, stem)


def _draw_line(axes: Axes, rows: pd.DataFrame) -> None:
    rows = rows.sort_values("setting")
    low, high = rows["win_rate_low"], rows["win_rate_high"]
    axes.fill_between(rows["setting"], low, high, color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(rows["setting"], rows["win_rate"], color=BLUE, marker="o", markersize=4)
    axes.vlines(rows["setting"], low, high, color=BLUE, linewidth=1)
    baseline = rows[rows["note"] == BASELINE]
    axes.scatter(
        baseline["setting"], baseline["win_rate"], s=60, marker="D", facecolor="none",
        edgecolor=VERMILION, linewidth=1.4, zorder=3, label=BASELINE,
    )  # fmt: skip
    if len(baseline):
        axes.legend(frameon=False)


def axis_scale(settings: pd.Series) -> str:
    """Returns "log" for positive settings that span the factor WIDE, else "linear"."""
    wide = settings.min() > 0 and settings.max() / settings.min() >= WIDE
    return "log" if wide else "linear"


def _scale(axes: Axes, settings: pd.Series) -> None:
    axes.set_ylim(bottom=0)
    axes.set_xscale(axis_scale(settings))
    ticks = np.unique(settings)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def _draw_bars(axes: Axes, rows: pd.DataFrame, names: list[str]) -> None:
    places = [names.index(name) for name in rows["adaptation"]]
    colors = [ORANGE if note == BASELINE else BLUE for note in rows["note"]]
    axes.barh(places, rows["win_rate"], height=0.7, color=colors)
    axes.hlines(places, rows["win_rate_low"], rows["win_rate_high"], color=BLACK, linewidth=1.4)
    for place, rate, high in zip(places, rows["win_rate"], rows["win_rate_high"], strict=True):
        number = axes.text(high + 2, place, f"{rate:.1f}", va="center", fontsize=8)
        # Numbers stay readable on the baseline's line.
        number.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})
    for level in rows.loc[rows["note"] == BASELINE, "win_rate"]:
        axes.axvline(level, color=VERMILION, linestyle="--", linewidth=1)


def _name_bars(axes: Axes, rows: pd.DataFrame) -> None:
    named = rows.drop_duplicates("adaptation")
    # Where two variants share a setting, only their names tell them apart.
    ticks = named["setting"] if named["setting"].is_unique else named["adaptation"]
    axes.set_yticks(range(len(named)), list(ticks))
    axes.invert_yaxis()
    axes.set_xlim(0, max(60.0, float(rows["win_rate_high"].max()) + 12))
