"""A judge beside the verdicts that it is held against."""

from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from implicit_tuning.reporting.figures.style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    PANEL_WIDTH,
    STYLE,
    VERMILION,
    finish,
)


def calibration_figure(
    models: pd.DataFrame, lengths: pd.DataFrame, folder: Path, stem: str, label: str
) -> None:
    """Draws a judge beside its yardstick: win rates of models, and verdicts for longer outputs.

    `models` has model, yardstick and judge (win rates, %); `lengths` has difference (characters),
    yardstick and judge (share of verdicts for the longer output, %), see `calibration`. Writes
    `<stem>.png` and `.svg` into `folder`; `label` says in the figure what was compared.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.2 * PANEL_WIDTH, 3.8), layout="constrained")
        rates, longer = figure.subplots(1, 2)
        rates.plot([0, 100], [0, 100], color=GREY, linestyle="--", linewidth=1)
        rates.scatter(models["yardstick"], models["judge"], s=16, color=BLUE, zorder=3)
        rates.set_xlabel("win rate under the yardstick (%)")
        rates.set_ylabel("win rate under the judge (%)")
        rates.set_title("models")
        for name, color, style in (("yardstick", BLACK, "-"), ("judge", ORANGE, "--")):
            if not lengths.empty:
                longer.plot(
                    lengths["difference"], lengths[name], style, color=color, marker="o", label=name
                )
        longer.axhline(50, color=VERMILION, linestyle=":", linewidth=1)
        longer.set_ylim(-3, 103)
        longer.set_xlabel("difference of lengths (characters, mean of a fifth of the pairs)")
        longer.set_ylabel("verdicts for the longer output (%)")
        longer.set_title("length")
        longer.legend(frameon=False)
        for axes in (rates, longer):
            axes.spines[["top", "right"]].set_visible(False)
        finish(figure, folder, stem, label)
