"""Training losses: the first and the last epoch of each adaptation, and every update behind them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from implicit_tuning.analysis.statistics import SeedMean, mean_of_numbers
from implicit_tuning.data.reading import read_rows
from implicit_tuning.reporting.tables.layout import Table, measured

LEVELS = ["base", "adaptation", "seed"]
HISTORY_COLUMNS = [*LEVELS, "epoch", "update", "loss"]
TABLE_COLUMNS = [
    "base",
    "adaptation",
    "epochs",
    "updates",
    "first_epoch_loss",
    "first_epoch_loss_std",
    "first_epoch_loss_low",
    "first_epoch_loss_high",
    "last_epoch_loss",
    "last_epoch_loss_std",
    "last_epoch_loss_low",
    "last_epoch_loss_high",
    "n_seeds",
]
DECIMALS = 5


def build(inputs: Mapping[str, Path], label: str, adaptations: Sequence[str]) -> Table:
    """Mean training loss (nats a response token) of the first and the last epoch.

    The interval is Student's t over seeds: updates are no sample, they trend, and each seed sees
    the rows in another order. One seed alone has none, and so no number. `loss-history.csv` beside
    the table has the loss of every update. `inputs` are the loss_history.jsonl of finetunes by
    base, adaptation and seed, joined by "/".

    Raises:
        ValueError: an adaptation that `adaptations` does not name, or an empty history.
    """
    history = _read_histories(inputs, adaptations)
    rows = [
        {"base": base, "adaptation": adaptation, **_summary(runs)}
        for (base, adaptation), runs in history.groupby(["base", "adaptation"], sort=False)
    ]
    frame = pd.DataFrame(rows, columns=TABLE_COLUMNS)
    return Table(frame, _caption(label, frame), extra={"history": history}, decimals=DECIMALS)


def _read_histories(inputs: Mapping[str, Path], adaptations: Sequence[str]) -> pd.DataFrame:
    """Every update of every run; bases as met, then adaptations as given, then seeds."""
    runs = [tuple(name.split("/")) for name in inputs]
    unknown = sorted({adaptation for _, adaptation, _ in runs} - set(adaptations))
    if unknown:
        raise ValueError(f"loss histories of {unknown}, which the list of adaptations lacks")
    bases = list(dict.fromkeys(base for base, _, _ in runs))
    runs.sort(key=lambda run: (bases.index(run[0]), adaptations.index(run[1]), int(run[2])))
    return pd.DataFrame(_history_rows(runs, inputs), columns=HISTORY_COLUMNS)


def _history_rows(runs: Sequence[tuple], inputs: Mapping[str, Path]) -> Iterable[dict]:
    for run in runs:
        file, levels = inputs["/".join(run)], dict(zip(LEVELS, run, strict=True))
        rows = list(read_rows(file))
        if not rows:
            raise ValueError(f"{file} holds no update: the finetune {'/'.join(run)} did not train")
        yield from (levels | {key: row[key] for key in HISTORY_COLUMNS[3:]} for row in rows)


def _summary(runs: pd.DataFrame) -> dict:
    epochs = int(runs["epoch"].max())
    return {
        "epochs": epochs,
        "updates": int(runs["update"].max()),
        **measured("first_epoch_loss", _mean_of_epoch(runs, 1)),
        **measured("last_epoch_loss", _mean_of_epoch(runs, epochs)),
        "n_seeds": runs["seed"].nunique(),
    }


def _mean_of_epoch(runs: pd.DataFrame, epoch: int) -> SeedMean | None:
    by_seed = runs[runs["epoch"] == epoch].groupby("seed")["loss"].mean()
    return mean_of_numbers(by_seed.to_list())


def _caption(label: str, frame: pd.DataFrame) -> str:
    alone = (
        " One seed has no interval, and its row no number." if (frame["n_seeds"] == 1).any() else ""
    )
    return (
        f"**{label or 'Training losses'}.** Training loss in nats a response token, mean over the "
        "updates of the first and of the last epoch and over seeds; ± is the standard deviation "
        f"over seeds, brackets the 95 % interval (Student's t over seeds).{alone} loss-history.csv "
        "has the loss of every update of every seed."
    )
