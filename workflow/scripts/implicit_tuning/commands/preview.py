"""`preview`: a look at an unfinished grid: the main table over what is judged so far, every gap named."""

import argparse
from collections import Counter

import pandas as pd

from implicit_tuning.commands.planned import planned
from implicit_tuning.experiment.plan import MEASURING, Plan, is_built
from implicit_tuning.nodes.artifact import require_whole
from implicit_tuning.nodes.node import Node, NodePaths, Source
from implicit_tuning.reporting.tables import main
from implicit_tuning.reporting.tables.layout import MEAN, counted, readable

MEASURES = {"judge": "comparisons", "rank": "rankings", "similarity": "similarities"}


def run(arguments: argparse.Namespace) -> int:
    """Print the main table so far."""
    print(preview_main(*planned(arguments)))
    return 0


def preview_main(plan: Plan, paths: NodePaths) -> str:
    """Markdown of the main table so far, marked as unfinished, with all measures that lack."""
    nodes = [node for stage in MEASURING for node in plan.stage(stage)]
    built = {node for node in nodes if is_built(paths, node)}
    judged = [node for node in plan.comparisons() if node in built]
    for node in judged:
        require_whole(paths.folder(node), read_bytes=True)
    lines = [f"PREVIEW: {_counts(nodes, built)}.", ""]
    if judged:
        lines += [_main_so_far(plan, judged, paths), ""]
    lines += [f"gap: {node.name}" for node in nodes if node not in built]
    return "\n".join(lines)


def _counts(nodes: list[Node], built: set[Node]) -> str:
    """How many of each kind of measure stand."""
    stand, asked = (Counter(node.stage for node in some) for some in (built, nodes))
    return ", ".join(
        f"{stand[stage]} of {asked[stage]} {MEASURES[stage]}" for stage in MEASURING if asked[stage]
    )


def _main_so_far(plan: Plan, built: list[Node], paths: NodePaths) -> str:
    """The table as its node would build it, over the comparisons that stand."""
    table = plan.nodes["table", ("main",)]
    inputs = {"/".join(node.levels): paths.folder(node) / "data" for node in built}
    calibration = table.upstream.get("calibration")
    if isinstance(calibration, Source):
        inputs["calibration"] = calibration.path
    settings = {k: v for k, v in table.settings.items() if k not in ("table", "module")}
    made = main.build(inputs, **settings)
    frame = with_missing_seeds(made.frame, Counter(_mean_of(node) for node in plan.comparisons()))
    return (
        f"{made.caption} Corrected for the tests of what stands, not for all that are planned.\n\n"
        f"{readable(frame).to_markdown(index=False, disable_numparse=True)}"
    )


def with_missing_seeds(frame: pd.DataFrame, asked: Counter) -> pd.DataFrame:
    """Returns the main table with a note on each mean that lacks seeds, such as "2 of 3 seeds".

    `asked` counts the seeds that the config asks for by judge, base and adaptation.
    """
    notes = []
    for row in frame.to_dict(orient="records"):
        wanted = asked[row["judge"], row["base"], row["adaptation"]]
        lacks = row["seed"] == MEAN and row["n_seeds"] < wanted
        gap = f"{row['n_seeds']} of {counted(wanted, 'seed')}" if lacks else ""
        notes.append("; ".join(filter(None, (gap, row["note"]))))
    return frame.assign(note=notes)


def _mean_of(comparison: Node) -> tuple[str, str, str]:
    """Judge, base and adaptation: a comparison's row of means."""
    base, adaptation, *_, judge = comparison.levels
    return judge, base, adaptation
