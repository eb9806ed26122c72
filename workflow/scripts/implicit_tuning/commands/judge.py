"""`judge`: compare two files of outputs, by a judge of the config."""

import argparse
import json
import logging
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from implicit_tuning.analysis.statistics import summarise
from implicit_tuning.commands.planned import planned
from implicit_tuning.data.reading import read_rows
from implicit_tuning.experiment.plan import Plan
from implicit_tuning.judging.alpaca import Comparison, judge_outputs, write_comparison
from implicit_tuning.judging.judge import Judge, JudgingFailed, Needs
from implicit_tuning.judging.kinds import make_judge
from implicit_tuning.judging.length_control import LengthControl
from implicit_tuning.nodes.artifact import require_whole
from implicit_tuning.nodes.logs import show_messages
from implicit_tuning.nodes.node import KeyNotKnown, Node, NodePaths, Source

logger = logging.getLogger(__name__)


class OtherComparison(ValueError):
    """The folder for the results holds something else; nothing was judged."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    rows = "rows with instruction, output and generator, as AlpacaEval's; .json or .jsonl"
    parser.add_argument("--outputs", type=Path, required=True, metavar="FILE", help=rows)
    parser.add_argument(
        "--references",
        type=Path,
        required=True,
        metavar="FILE",
        help="what they are judged against: the same instructions in the same order",
    )
    add_judge_argument(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="for annotations.jsonl and summary.json; verdicts are kept beside it, in "
        "FOLDER.verdicts.jsonl, and are not asked for again",
    )


def add_judge_argument(parser: argparse.ArgumentParser) -> None:
    """The argument that names a judge."""
    parser.add_argument(
        "--judge", metavar="NAME", help="a name under `judges` of the config (default: its `judge`)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Judge two files, and print the result."""
    _, node, paths = planned_with_judge(arguments)
    try:
        comparison = judge_files(
            arguments.outputs, arguments.references, node, paths, arguments.out
        )
    except (ValueError, OSError, JudgingFailed) as error:
        print(error, file=sys.stderr)
        return 1
    print(describe_comparison(comparison))
    return 0


def planned_with_judge(arguments: argparse.Namespace) -> tuple[Plan, Node, NodePaths]:
    """The plan under the judge that was asked for, and a comparison of it."""
    show_messages()
    if arguments.judge is not None:
        arguments.config = [*arguments.config, f"judge={json.dumps(arguments.judge)}"]
    made, paths = planned(arguments)
    return made, made.stage("judge")[0], paths


def judge_files(
    outputs: Path, references: Path, node: Node, paths: NodePaths, out: Path | None
) -> Comparison:
    """Judges one file of outputs against another as the comparisons of a plan are judged.

    Args:
        outputs, references: AlpacaEval rows, .json or .jsonl.
        node: any comparison of the plan; it tells the judge and what that needs.
        paths: where nodes are built.
        out: folder for annotations.jsonl and summary.json; verdicts are kept beside it, in
            `<out>.verdicts.jsonl`, so that a judging that stopped asks for the rest only. With None
            nothing is written.

    Raises:
        OtherComparison: `out` holds the results of other outputs or of another judge.
        LookupError: the judge needs what is not built yet.
        ValueError, JudgingFailed: as `alpaca.compare` and `read_rows`.
    """
    if out is None and "base_url" in node.runtime:
        raise ValueError("give --out: it keeps an endpoint's verdicts, so that none is asked twice")
    rows, reference_rows = list(read_rows(outputs)), list(read_rows(references))
    judge = judge_of(node, paths)
    if out is not None:
        _require_own(out, judge.judge_id, rows, reference_rows)
    comparison = judge_outputs(
        rows,
        reference_rows,
        judge,
        cache=out and out.with_name(f"{out.name}.verdicts.jsonl"),
        max_failed=node.settings["comparison"]["max_failed"],
        both_orders=node.settings["comparison"]["both_orders"],
        length_control=_length_control(node),
    )
    if out is not None:
        _write(comparison, out)
    return comparison


def read_comparison(folder: Path) -> Comparison:
    """Returns the comparison that `write_comparison` wrote into a folder."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return Comparison(list(read_rows(folder / "annotations.jsonl")), summary)


def describe_comparison(comparison: Comparison) -> str:
    """Returns the result in a few lines for people."""
    summary = comparison.summary
    lines = [f"judge           {summary['judge_id']}"]
    if summary["n_total"]:
        rate = summarise(comparison.annotations)
        lines.append(
            f"win rate        {rate.win_rate:.2f} % "
            f"(95 % interval {rate.low:.2f} to {rate.high:.2f}, over {rate.n} pairs)"
        )
    controlled = summary["length_controlled_winrate"]
    lines += [
        f"length ratio    {_two_places(summary['length_ratio'])} (model over reference, characters)",
        f"length control  {summary['lc_status'] if controlled is None else f'{controlled:.2f} %'}",
        "pairs           {n_expected}: {n_wins} won, {n_wins_base} lost, {n_draws} drawn, "
        "{n_failed} without a verdict".format_map(summary),
        "outputs         {n_empty_model} empty of the model, {n_empty_reference} of the reference; "
        "{n_cut} cut; {n_with_logprobs} verdicts with log-probabilities".format_map(summary),
    ]
    return "\n".join(lines)


def _two_places(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"


# --- what the judge needs -----------------------------------------------------------------------


def judge_of(node: Node, paths: NodePaths) -> Judge:
    """Returns the judge of a comparison of the plan, outside of any job."""

    def truths() -> dict[str, Mapping]:
        rows = read_rows(_built(node.upstream["instructions"], paths) / "instructions.jsonl")
        return {row["instruction"]: row["truth"] for row in rows}

    needs = Needs(
        truths=truths,
        model=lambda: _built(node.upstream["judge"], paths),
        chat=node.settings.get("chat", {}),
        spending=paths.spending,
    )
    return make_judge(node.settings["judge"], node.runtime, needs)


def _length_control(node: Node) -> LengthControl | None:
    if not node.settings["comparison"]["length_controlled"]:
        return None
    file = node.upstream.get("df_gamed")
    return LengthControl(file.path if isinstance(file, Source) else None)


def _built(above: Node | Source, paths: NodePaths) -> Path:
    """Data of a node, or the path of a source, every byte checked where a manifest knows it."""
    if isinstance(above, Source):
        return above.path
    try:
        built = paths.is_built(above)
    except KeyNotKnown:
        built = False
    if not built:
        raise LookupError(
            f"the judge needs '{above.name}', which is not built under this config: run "
            "'make data' first, with the same config"
        )
    require_whole(paths.folder(above), read_bytes=True)
    return paths.folder(above) / "data"


# --- the folder of the results ------------------------------------------------------------------


def _require_own(
    out: Path, judge_id: str, outputs: Sequence[Mapping], references: Sequence[Mapping]
) -> None:
    """Refuses a folder that holds another comparison; outputs that changed are the same one's."""
    if not out.exists():
        return
    file = out / "annotations.jsonl"
    if not out.is_dir() or (any(out.iterdir()) and not file.is_file()):
        raise OtherComparison(f"--out {out} exists and holds no comparison: choose another folder")
    if not file.is_file():
        return
    held = next(read_rows(file), None) or {}
    ours = {
        "judge_id": judge_id,
        "generator_1": references[0]["generator"] if references else None,
        "generator_2": outputs[0]["generator"] if outputs else None,
    }
    other = {key: held.get(key) for key, value in ours.items() if held.get(key) != value}
    if other:
        raise OtherComparison(
            f"--out {out} holds another comparison ({json.dumps(other)} instead of "
            f"{json.dumps({key: ours[key] for key in other})}): choose another folder"
        )
    logger.info("%s holds this comparison already; its results are renewed", out)


def _write(comparison: Comparison, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as unfinished:
        write_comparison(comparison, Path(unfinished))
        for file in sorted(Path(unfinished).iterdir()):
            os.replace(file, out / file.name)
