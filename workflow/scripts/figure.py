"""Draw one figure of the experiment from its table."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from implicit_tuning.artifact import building
from implicit_tuning.figures import LossHistory, loss_figure, win_rate_figure


def draw_figure(
    table: Path,
    destination: Path,
    figure: str,
    label: str,
    reference: str,
    adaptations: Sequence[str],
    controls: Sequence[str],
) -> None:
    """Write the figure as .png and .svg, with its data as .csv.

    Args:
        table: data folder of the table of the same name.
        destination: folder for the files.
        figure: "main" (win rates) or "loss" (training curves).
        label: what kind of result the figure shows.
        reference: the adaptation that every run was compared with.
        adaptations: in the order of the legend.
        controls: adaptations that are drawn apart.
    """
    frame = pd.read_csv(table / f"{figure}.csv", dtype={"base": str, "adaptation": str})
    if figure == "main":
        win_rate_figure(frame, destination, figure, label, reference, controls)
        return
    histories = [
        LossHistory(base, adaptation, int(seed), rows.to_dict(orient="records"))
        for (base, adaptation, seed), rows in frame.groupby(
            ["base", "adaptation", "seed"], sort=False
        )
    ]
    loss_figure(histories, adaptations, destination, figure, label)


if __name__ == "__main__":
    with building(snakemake.params.node, snakemake.log[0]) as job:  # noqa: F821
        draw_figure(job.read("table"), job.data, **job.settings)
