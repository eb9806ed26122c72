"""The sweep over epochs on the validation set, and what was chosen."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from implicit_tuning.analysis.epochs import margin_of
from implicit_tuning.analysis.statistics import summarise
from implicit_tuning.reporting.tables.comparisons import ComparisonResult, read_result
from implicit_tuning.reporting.tables.layout import Table, counted, measured

TABLE_COLUMNS = [
    "base",
    "adaptation",
    "seed",
    "epochs",
    "win_rate",
    "win_rate_low",
    "win_rate_high",
    "chosen",
    "compared_with_epochs",
    "margin",
    "margin_low",
    "margin_high",
    "n",
    "judge",
    "note",
]

Candidates = dict[int, ComparisonResult]


def build(
    inputs: Mapping[str, Path],
    label: str,
    adaptations: Sequence[str],
    sweep: Mapping[str, Sequence],
) -> Table:
    """Win rate (%) of each number of epochs against the validation set's reference answers.

    The chosen row has its margin (points, paired by instruction) over the best other one, which
    `compared_with_epochs` names. `inputs` are data folders of comparisons ("judge/...") and choices
    ("select/base/adaptation") by the names of their nodes. `sweep` has the adaptation and number of
    epochs of each run.

    Raises:
        ValueError: a run that `sweep` does not name, or a choice that was not among the candidates.
    """
    rows = []
    for (base, adaptation), candidates in _candidates(inputs, adaptations, sweep).items():
        choice = inputs[f"select/{base}/{adaptation}"] / "epochs.json"
        chosen = json.loads(choice.read_text(encoding="utf-8"))["epochs"]
        if chosen not in candidates:
            raise ValueError(
                f"{choice} chose {chosen} epochs for {adaptation!r} on {base!r}, which were not "
                f"tried; tried were {sorted(candidates)}"
            )
        rows += _rows(candidates, adaptation, chosen)
    frame = pd.DataFrame(rows, columns=TABLE_COLUMNS).astype({"compared_with_epochs": "Int64"})
    return Table(frame, _caption(label))


def _candidates(
    inputs: Mapping[str, Path], adaptations: Sequence[str], sweep: Mapping[str, Sequence]
) -> dict[tuple[str, str], Candidates]:
    """Comparisons by base (as met) and adaptation (as listed), and by their number of epochs."""
    found: dict[tuple[str, str], Candidates] = {}
    for name, folder in inputs.items():
        stage, _, levels = name.partition("/")
        if stage != "judge":
            continue
        result = read_result(levels, folder)
        if result.adaptation not in sweep:
            raise ValueError(f"{name}: {result.adaptation!r} is no run of the sweep over epochs")
        adaptation, epochs = sweep[result.adaptation]
        found.setdefault((result.base, adaptation), {})[epochs] = result
    bases = list(dict.fromkeys(base for base, _ in found))
    places = sorted(found, key=lambda run: (bases.index(run[0]), adaptations.index(run[1])))
    return {place: dict(sorted(found[place].items())) for place in places}


def _rows(candidates: Candidates, adaptation: str, chosen: int) -> list[dict]:
    runner_up, margin = margin_of(chosen, {n: run.annotations for n, run in candidates.items()})
    rows = []
    for epochs, run in candidates.items():
        rate = summarise(run.annotations)
        rows.append(
            {
                "base": run.base,
                "adaptation": adaptation,
                "seed": str(run.table_seed),
                "epochs": epochs,
                "win_rate": rate.win_rate,
                "win_rate_low": rate.low,
                "win_rate_high": rate.high,
                "chosen": "yes" if epochs == chosen else "no",
                "n": rate.n,
                "judge": run.judge,
            }
        )
        if epochs == chosen and margin is not None and runner_up is not None:
            within = margin.low <= 0 <= margin.high
            note = f"margin over {counted(runner_up, 'epoch')}" + (
                ", within chance" if within else ""
            )
            rows[-1] |= {"compared_with_epochs": runner_up, "note": note}
            rows[-1] |= measured("margin", margin)
    return rows


def _caption(label: str) -> str:
    return (
        f"**{label or 'Epochs'}.** Win rates in % against the reference answers of the validation "
        "set, one run for each number of epochs; brackets are the 95 % interval (bootstrap over "
        "instructions; exact where nearly all pairs end alike). The highest was chosen, of equals "
        "the fewest epochs; `margin` is what it has over the best other one, in points, paired by "
        "instruction."
    )
