"""`calibrate`: how far a judge of the config agrees with stored annotations."""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from implicit_tuning.commands.judge import add_judge_argument, judge_of, planned_with_judge
from implicit_tuning.judging.alpaca import judge_outputs
from implicit_tuning.judging.calibration import (
    MEANINGS,
    Calibration,
    Measure,
    calibrate,
    write_calibration,
)
from implicit_tuning.judging.judge import JudgingFailed
from implicit_tuning.judging.kinds import JUDGE_KINDS
from implicit_tuning.judging.stored_verdicts import local_file, read_yardstick
from implicit_tuning.nodes.node import Node, NodePaths
from implicit_tuning.reporting.figures.calibration import calibration_figure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_judge_argument(parser)
    parser.add_argument(
        "--annotations",
        nargs="+",
        required=True,
        metavar="FILE_OR_URL",
        help="stored verdicts in the layout of alpaca_eval's annotations.json; a URL is fetched "
        "once, into results/cache",
    )


def run(arguments: argparse.Namespace) -> int:
    """Calibrate the judge, and print every measure."""
    made, node, paths = planned_with_judge(arguments)
    name = made.config.judge
    try:
        calibration = calibrate_files(name, arguments.annotations, node, paths)
    except (ValueError, OSError, JudgingFailed) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"\n{describe_calibration(calibration)}\n")
    file = calibration_folder(name, paths) / "calibration.json"
    named = made.config.judges[name].get("calibration")
    if named is None or named.resolve() != file.resolve():
        print(f"for the tables: write 'calibration: {file}' under judges.{name}")
    return 0


def calibrate_files(
    judge_name: str, sources: Sequence[str], node: Node, paths: NodePaths
) -> Calibration:
    """Judges the stored pairs and writes what came of it to `calibration_folder`.

    Verdicts are kept by judge, so that a calibration that stopped asks for the rest only.

    Args:
        judge_name: the judge's name in the config.
        sources: paths or URLs of stored annotations, see `stored`.
        node: any comparison by this judge; it tells what the judge needs.
        paths: where nodes are built.

    Raises:
        UnusableAnnotations: of files that cannot be fetched or read.
        ValueError: the judge knows the truth; nothing can calibrate it.
        JudgingFailed: as `alpaca.compare`.
    """
    kind = JUDGE_KINDS[node.settings["judge"]["kind"]]
    if kind.truth:
        raise ValueError(
            f"judges.{judge_name} is right by construction about the organism's instructions, and "
            "knows no others: calibrate another judge"
        )
    downloads = paths.results / "cache" / "annotations"
    yardstick = read_yardstick([local_file(source, downloads) for source in sources])
    judge = judge_of(node, paths)
    passes = 2 if node.settings["comparison"]["both_orders"] or _asks_both(judge) else 1
    print(
        f"{len(yardstick.pairs)} pairs of {yardstick.name}, each judged "
        f"{'once' if passes == 1 else 'twice'} by {judge.judge_id}, unless that is known already"
    )
    kept = paths.results / "cache" / "calibration"
    ask = partial(
        judge_outputs,
        judge=judge,
        cache=kept / f"{judge.judge_id}.v{kind.version}.jsonl",
        # Where the first version was kept before files were named by versions.
        earlier_caches=[kept / f"{judge.judge_id}.jsonl"] if kind.version == 1 else [],
        max_failed=node.settings["comparison"]["max_failed"],
        both_orders=node.settings["comparison"]["both_orders"],
    )
    calibration = calibrate(judge_name, yardstick, ask)
    write_report(calibration, calibration_folder(judge_name, paths))
    return calibration


def calibration_folder(judge_name: str, paths: NodePaths) -> Path:
    """Where the calibration of a judge is written; the config then names the file in it."""
    return paths.results / "calibration" / judge_name


def write_report(calibration: Calibration, folder: Path) -> None:
    """Writes measures, models and lengths as tables, the figure, and calibration.json last."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as name:
        unfinished = Path(name)
        models, lengths = pd.DataFrame(calibration.models), pd.DataFrame(calibration.lengths)
        for stem, frame in (("models", models), ("lengths", lengths)):
            _write_csv(frame, unfinished / f"{stem}.csv")
        _write_csv(measures_frame(calibration), unfinished / "measures.csv")
        (unfinished / "measures.md").write_text(
            describe_calibration(calibration) + "\n", encoding="utf-8"
        )
        calibration_figure(models, lengths, unfinished, "calibration", headline(calibration))
        for file in sorted(unfinished.iterdir()):
            os.replace(file, folder / file.name)
        write_calibration(calibration, unfinished / "calibration.json")
        os.replace(unfinished / "calibration.json", folder / "calibration.json")


def measures_frame(calibration: Calibration) -> pd.DataFrame:
    """Returns a row for each measure: its name, value, interval, unit and meaning."""
    rows = [
        {
            "measure": name,
            "value": measure.value,
            "low": measure.low,
            "high": measure.high,
            "unit": measure.unit,
            "meaning": MEANINGS[name],
        }
        for name, measure in calibration.measures.items()
    ]
    return pd.DataFrame(rows)


def headline(calibration: Calibration) -> str:
    """One line that says who was held against what, and on how many pairs."""
    counts = (calibration.n_pairs, calibration.n_instructions, calibration.n_models)
    return (
        f"judge {calibration.judge} against {calibration.yardstick}: "
        "{} pairs, {} instructions, {} models".format(*counts)
    )


def describe_calibration(calibration: Calibration) -> str:
    """Returns the calibration as Markdown for people."""
    rows = [
        {"measure": name, "value": _readable(measure), "meaning": MEANINGS[name]}
        for name, measure in calibration.measures.items()
    ]
    table = pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)
    return (
        f"**{headline(calibration)}** (judge id {calibration.judge_id}). Brackets: 95 % interval, "
        f"bootstrap over instructions. {calibration.n_failed} pairs stayed without a verdict; "
        f"{calibration.n_unjudged} stored rows had none, {calibration.n_identical} pairs were of "
        f"equal outputs.\n\n{table}"
    )


def _readable(measure: Measure) -> str:
    if measure.value is None:
        return "-"
    digits, unit = (1, " %") if measure.unit else (2, "")
    value, low, high = (
        f"{number:.{digits}f}" for number in (measure.value, measure.low, measure.high)
    )
    return f"{value}{unit} [{low}, {high}]"


def _asks_both(judge: object) -> bool:
    return getattr(judge, "both_orders", False)


def _write_csv(frame: pd.DataFrame, file: Path) -> None:
    csv = frame.to_csv(index=False, float_format="%.4f", lineterminator="\n")
    file.write_text(csv, encoding="utf-8", newline="\n")
