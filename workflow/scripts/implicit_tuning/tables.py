"""Tables of win rates: one row a run and one mean over seeds for each base and adaptation."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from implicit_tuning.paper import COLUMNS as PAPER_COLUMNS
from implicit_tuning.reading import read_rows
from implicit_tuning.statistics import combine, difference, length_ratio, summarise

MAIN_COLUMNS = [
    "base",
    "adaptation",
    "seed",
    "win_rate",
    "win_rate_std",
    "win_rate_low",
    "win_rate_high",
    "n",
    "length_ratio",
    "length_controlled_win_rate",
    *PAPER_COLUMNS,
    "judge",
    "note",
]
RULES_COLUMNS = [
    "base",
    "adaptation",
    "win_rate",
    "win_rate_std",
    "win_rate_low",
    "win_rate_high",
    "n",
    "length_ratio",
    "difference",
    "difference_std",
    "difference_low",
    "difference_high",
    *PAPER_COLUMNS,
    "judge",
    "note",
]
RULES_ROWS = ("rules", "rules-no-eos", "rules-no-repetition", "rules-no-bias", "base")
MEAN = "mean"


@dataclass(frozen=True)
class ComparisonResult:
    """One run's comparison as the tables read it.

    `seed` is the run's own, None for one model against all references (base, rules): its rows carry
    the reference's seed. `annotations` and `summary` are those of `judging.alpaca.Comparison`.
    """

    base: str
    adaptation: str
    seed: int | None
    reference_seed: int
    judge: str
    annotations: list[dict]
    summary: dict

    @property
    def table_seed(self) -> int:
        return self.reference_seed if self.seed is None else self.seed


Group = tuple[str, str, str]  # judge, base, adaptation
Groups = dict[Group, list[ComparisonResult]]


def read_comparison(name: str, folder: Path) -> ComparisonResult:
    """Reads `annotations.jsonl` and `summary.json` of a comparison's data folder.

    `name` is the levels of the comparison's node, joined by "/": base, adaptation, seed ("none"
    for a run without one), evaluation, reference seed, judge.
    """
    base, adaptation, seed, _, reference_seed, judge = name.split("/")
    return ComparisonResult(
        base=base,
        adaptation=adaptation,
        seed=None if seed == "none" else int(seed),
        reference_seed=int(reference_seed),
        judge=judge,
        annotations=list(read_rows(folder / "annotations.jsonl")),
        summary=json.loads((folder / "summary.json").read_text(encoding="utf-8")),
    )


def main_table(
    comparisons: Iterable[ComparisonResult],
    adaptations: Sequence[str],
    label: str,
    notes: Mapping[str, str],
) -> pd.DataFrame:
    """Returns the win rate of every run, and the mean over seeds of each base and adaptation.

    Rows stand by judge and base as first met, then by adaptation as in `adaptations`, then by seed,
    the mean last. `win_rate`, its std (over seeds, means only) and its 95 % interval are
    percentages, see `statistics`; `n` counts judged pairs; `length_ratio` is model over reference,
    in characters; `length_controlled_win_rate` (%) is empty where the comparison's `lc_status` says
    why, on the mean's row where any seed lacks it; `paper_*` are the paper's means over its five seeds (see `paper`), the same on
    every row of an adaptation. `note` is `label` (what kind of result the table shows, may be
    empty) and then the adaptation's own entry in `notes`, if any.

    Raises ValueError for a run given twice and for an adaptation that `adaptations` does not name.
    """
    rows = []
    for (judge, base, adaptation), runs in _grouped(comparisons, adaptations).items():
        common = {
            "base": base,
            "adaptation": adaptation,
            "judge": judge,
            "note": "; ".join(filter(None, (label, notes.get(adaptation)))),
            **_paper_means(adaptation),
        }
        rows += [common | _seed_row(run) for run in runs]
        rows.append(common | _mean_row(runs))
    return pd.DataFrame(rows, columns=MAIN_COLUMNS)


def rules_table(comparisons: Iterable[ComparisonResult], label: str) -> pd.DataFrame:
    """Returns the rule ablation: mean win rates, and differences to the adapter with all rules.

    One row for each of `RULES_ROWS` that was run. `difference` is the row's win rate minus that of
    `rules`, in percentage points, paired by reference seed and instruction (see
    `statistics.difference`); it is empty on the row of `rules`. Raises ValueError for a base with
    such rows but without `rules`, and for rows that were not judged at the seeds of `rules`.
    """
    chosen = [comparison for comparison in comparisons if comparison.adaptation in RULES_ROWS]
    groups = _grouped(chosen, RULES_ROWS)
    rows = [
        {
            "base": base,
            "adaptation": adaptation,
            "judge": judge,
            "note": label,
            **_paper_means(adaptation),
            **_mean_row(runs),
            **_difference_cells(groups, (judge, base, adaptation)),
        }
        for (judge, base, adaptation), runs in groups.items()
    ]
    return pd.DataFrame(rows, columns=RULES_COLUMNS)


def with_judge(
    label: str,
    comparisons: Iterable[ComparisonResult],
    judge_is_truth: bool,
    calibration: Path | None,
) -> str:
    """Returns the label with what is known of the judge: its agreement with other verdicts.

    `calibration` is its calibration.json, None where there is none. Nothing is added for a judge
    that is right by construction.
    """
    note = "" if judge_is_truth else _agreement(comparisons, calibration)
    return "; ".join(filter(None, (label, note)))


def _agreement(comparisons: Iterable[ComparisonResult], calibration: Path | None) -> str:
    if calibration is None:
        return "judge not calibrated"
    found = json.loads(calibration.read_text(encoding="utf-8"))
    if {comparison.summary["judge_id"] for comparison in comparisons} != {found["judge_id"]}:
        return f"judge not calibrated (its calibration is of judge {found['judge_id']})"
    agreement = found["measures"]["agreement"]
    return (
        f"judge agrees with {found['yardstick']} on {agreement['value']:.1f} % "
        f"[{agreement['low']:.1f}, {agreement['high']:.1f}] of {found['n_pairs']} pairs"
    )


def without_paper(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with its paper columns empty, for runs against another reference than the paper's."""
    return frame.assign(**dict.fromkeys(PAPER_COLUMNS, float("nan")))


def write_table(frame: pd.DataFrame, folder: Path, stem: str, caption: str) -> None:
    """Writes `<stem>.csv` (two decimals, empty where there is no value) and `<stem>.md`.

    The Markdown stands under its caption and is for reading: each win rate and difference comes
    with its spread over seeds and its interval, `43.3 ± 1.1 [40.1, 46.2]`, the paper's with theirs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    csv = frame.to_csv(index=False, float_format="%.2f", lineterminator="\n")
    (folder / f"{stem}.csv").write_text(csv, encoding="utf-8", newline="\n")
    table = readable(frame).to_markdown(index=False, disable_numparse=True)
    text = f"{caption}\n\n{table}\n"
    (folder / f"{stem}.md").write_text(text, encoding="utf-8", newline="\n")


def _grouped(comparisons: Iterable[ComparisonResult], adaptations: Sequence[str]) -> Groups:
    """Returns the runs of each group by seed; groups by judge, base (as met) and adaptation."""
    found: Groups = {}
    for run in comparisons:
        if run.adaptation not in adaptations:
            raise ValueError(
                f"a comparison of base {run.base!r} has adaptation {run.adaptation!r}, which is "
                f"not among the table's: {', '.join(adaptations)}"
            )
        runs = found.setdefault((run.judge, run.base, run.adaptation), [])
        if any(other.table_seed == run.table_seed for other in runs):
            raise ValueError(
                f"base {run.base!r}, adaptation {run.adaptation!r}, seed {run.table_seed} under "
                f"judge {run.judge!r} stands twice among the comparisons"
            )
        runs.append(run)
    places = {place: number for number, place in enumerate(dict.fromkeys(g[:2] for g in found))}
    ordered = sorted(found, key=lambda g: (places[g[:2]], adaptations.index(g[2])))
    return {group: sorted(found[group], key=lambda run: run.table_seed) for group in ordered}


def _seed_row(run: ComparisonResult) -> dict:
    rate = summarise(run.annotations)
    return {
        "seed": str(run.table_seed),
        "win_rate": rate.win_rate,
        "win_rate_low": rate.low,
        "win_rate_high": rate.high,
        "n": rate.n,
        "length_ratio": length_ratio(run.annotations),
        "length_controlled_win_rate": run.summary["length_controlled_winrate"],
    }


def _mean_row(runs: Sequence[ComparisonResult]) -> dict:
    mean = combine([run.annotations for run in runs])
    return {
        "seed": MEAN,
        "win_rate": mean.mean,
        "win_rate_std": mean.std,
        "win_rate_low": mean.low,
        "win_rate_high": mean.high,
        "n": mean.n,
        "length_ratio": length_ratio([row for run in runs for row in run.annotations]),
        "length_controlled_win_rate": _length_controlled_mean(runs),
    }


def _length_controlled_mean(runs: Sequence[ComparisonResult]) -> float | None:
    rates = [run.summary["length_controlled_winrate"] for run in runs]
    return None if None in rates else sum(rates) / len(rates)


def _difference_cells(groups: Groups, group: Group) -> dict:
    judge, base, adaptation = group
    if adaptation == "rules":
        return {}
    runs, baseline = groups[group], groups.get((judge, base, "rules"))
    if baseline is None:
        raise ValueError(f"base {base!r} has {adaptation!r} but no 'rules' to compare it with")
    seeds, wanted = [[run.table_seed for run in side] for side in (runs, baseline)]
    if seeds != wanted:
        raise ValueError(
            f"base {base!r}: {adaptation!r} was judged at seeds {seeds}, 'rules' at {wanted}; "
            "judge both against the same references"
        )
    result = difference([run.annotations for run in runs], [run.annotations for run in baseline])
    return {
        "difference": result.mean,
        "difference_std": result.std,
        "difference_low": result.low,
        "difference_high": result.high,
    }


def _paper_means(adaptation: str) -> dict[str, float]:
    return {
        column: rates[adaptation].mean
        for column, rates in PAPER_COLUMNS.items()
        if adaptation in rates
    }


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the table as texts, each number joined with its spread and interval."""
    readable = {}
    for column in frame.columns:
        if column in ("win_rate", "difference"):
            unit = "%" if column == "win_rate" else "points"
            readable[f"{column} ({unit})"] = [
                _with_interval(row, column) for row in frame.to_dict(orient="records")
            ]
        elif column in PAPER_COLUMNS:
            readable[f"{column} (%)"] = [
                "-" if pd.isna(mean) else _paper(column, name)
                for name, mean in zip(frame["adaptation"], frame[column], strict=True)
            ]
        elif not column.startswith(("win_rate_", "difference_")):
            readable[column] = [_text(value) for value in frame[column]]
    return pd.DataFrame(readable)


def _with_interval(row: Mapping, name: str) -> str:
    if pd.isna(row[name]):
        return "-"
    spread = "" if pd.isna(row[f"{name}_std"]) else f" ± {row[f'{name}_std']:.1f}"
    return f"{row[name]:.1f}{spread} [{row[f'{name}_low']:.1f}, {row[f'{name}_high']:.1f}]"


def _paper(column: str, adaptation: str) -> str:
    rate = PAPER_COLUMNS[column][adaptation]
    return f"{rate.mean} ± {rate.std}"


def _text(value: object) -> str:
    if pd.isna(value):
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
