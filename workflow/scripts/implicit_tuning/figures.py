"""Figures of the results, as .png and .svg with the plotted numbers beside them as .csv.

Colors are those of Okabe and Ito, which people with color-blindness can tell apart. The bytes are
deterministic: no dates, no random ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from implicit_tuning.tables import MEAN

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, YELLOW, BLACK = "#56B4E9", "#CC79A7", "#F0E442", "#000000"
GREY = "#595959"
LINE_COLORS = (BLACK, BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE, YELLOW)
LINE_STYLES = ("-", "--", ":")
PANEL_WIDTH = 4.8  # inches
STYLE = {"font.size": 9, "svg.hashsalt": "implicit-tuning", "svg.fonttype": "none"}


@dataclass(frozen=True)
class LossHistory:
    """Training losses of one run: rows of its `loss_history.jsonl`, with `update` and `loss`."""

    base: str
    adaptation: str
    seed: int
    rows: list[dict]


def win_rate_figure(
    table: pd.DataFrame,
    folder: Path,
    stem: str,
    label: str,
    reference: str,
    controls: Sequence[str] = (),
) -> None:
    """Draws mean win rates (%) with their 95 % intervals as bars, one panel a base.

    `table` is `tables.main_table`, of one judge; dots show the single seeds. Adaptations in
    `controls` are hatched in grey, a dashed line marks 50 %, the level of `reference`. Writes
    `<stem>.png`, `.svg` and `.csv` into `folder`; `label` says in the figure what kind of result it
    is. Raises ValueError for a table of several judges or of none.
    """
    judges = list(table["judge"].unique())
    if len(judges) != 1:
        raise ValueError(f"a win-rate figure shows one judge, the table has {judges}")
    bases = list(table["base"].unique())
    names = list(dict.fromkeys(table["adaptation"]))
    with mpl.rc_context(STYLE):
        figure, panels = _panels(len(bases), height=1.6 + 0.28 * len(names))
        for axes, base in zip(panels, bases, strict=True):
            _draw_win_rates(axes, table[table["base"] == base], names, controls)
            axes.set_title(base)
        ticks = [f"{name} (control)" if name in controls else name for name in names]
        panels[0].set_yticks(range(len(names)), ticks)
        panels[0].invert_yaxis()
        panels[0].set_xlim(0, max(60.0, float(table["win_rate_high"].max()) + 12))
        figure.supxlabel(
            f"win rate against the run '{reference}' of the same seed (%), judge: {judges[0]}"
        )
        _finish(figure, folder, stem, label)
    shown = ["base", "adaptation", "seed", "win_rate", "win_rate_low", "win_rate_high", "n"]
    _write_csv(table[shown], folder, stem, "%.2f")


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
        _finish(figure, folder, stem, label)


def loss_figure(
    histories: Sequence[LossHistory],
    adaptations: Sequence[str],
    folder: Path,
    stem: str,
    label: str,
) -> None:
    """Draws training loss (nats a response token) over updates, one panel a base.

    A color an adaptation, in the order of `adaptations`: thin lines are seeds, the thick line is
    their mean. Writes `<stem>.png`, `.svg` and `.csv` into `folder`. Raises ValueError when there
    is nothing to draw.
    """
    if not histories:
        raise ValueError("there are no loss histories to draw")
    frame = _loss_frame(histories, adaptations)
    bases = list(frame["base"].unique())
    names = [name for name in adaptations if name in set(frame["adaptation"])]
    with mpl.rc_context(STYLE):
        figure, panels = _panels(len(bases), height=3.6)
        for axes, base in zip(panels, bases, strict=True):
            _draw_losses(axes, frame[frame["base"] == base], names)
            axes.set_title(base)
            axes.set_xlabel("update")
        panels[0].set_ylabel("training loss (nats a token)")
        handles, texts = panels[0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside right center", frameon=False)
        _finish(figure, folder, stem, label)
    _write_csv(frame, folder, stem, "%.6f")


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(1.2 + PANEL_WIDTH * count, height), layout="constrained")
    return figure, list(figure.subplots(1, count, sharex=True, sharey=True, squeeze=False)[0])


def _draw_win_rates(
    axes: Axes, rows: pd.DataFrame, names: Sequence[str], controls: Sequence[str]
) -> None:
    means = rows[rows["seed"] == MEAN].set_index("adaptation")
    for place, name in enumerate(names):
        if name not in means.index:
            continue
        mean, low, high = means.loc[name, ["win_rate", "win_rate_low", "win_rate_high"]]
        style = {"color": BLUE}
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
    axes.spines[["top", "right"]].set_visible(False)


def _loss_frame(histories: Sequence[LossHistory], adaptations: Sequence[str]) -> pd.DataFrame:
    """Returns base, adaptation, seed, update, loss; bases as met, then in the given order."""
    unknown = sorted({h.adaptation for h in histories} - set(adaptations))
    if unknown:
        raise ValueError(f"loss histories of {unknown}, which the list of adaptations lacks")
    bases = list(dict.fromkeys(history.base for history in histories))
    ordered = sorted(
        histories, key=lambda h: (bases.index(h.base), adaptations.index(h.adaptation), h.seed)
    )
    records = [
        (history.base, history.adaptation, history.seed, row["update"], row["loss"])
        for history in ordered
        for row in history.rows
    ]
    return pd.DataFrame(records, columns=["base", "adaptation", "seed", "update", "loss"])


def _draw_losses(axes: Axes, rows: pd.DataFrame, names: Sequence[str]) -> None:
    for number, name in enumerate(names):
        color = LINE_COLORS[number % len(LINE_COLORS)]
        style = LINE_STYLES[number // len(LINE_COLORS) % len(LINE_STYLES)]
        chosen = rows[rows["adaptation"] == name]
        for _, seed in chosen.groupby("seed"):
            axes.plot(seed["update"], seed["loss"], style, color=color, lw=0.6, alpha=0.5)
        mean = chosen.groupby("update")["loss"].mean()
        axes.plot(mean.index, mean.to_numpy(), style, color=color, linewidth=1.8, label=name)
    axes.spines[["top", "right"]].set_visible(False)


def _finish(figure: Figure, folder: Path, stem: str, label: str) -> None:
    if label:
        figure.suptitle(label, fontsize=9, color=GREY, style="italic")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{stem}.png", dpi=150)
    figure.savefig(folder / f"{stem}.svg", metadata={"Date": None})


def _write_csv(frame: pd.DataFrame, folder: Path, stem: str, float_format: str) -> None:
    csv = frame.to_csv(index=False, float_format=float_format, lineterminator="\n")
    (folder / f"{stem}.csv").write_text(csv, encoding="utf-8", newline="\n")
