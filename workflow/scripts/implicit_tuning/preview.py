"""A look at an unfinished grid: the main table over what is judged so far, every gap named."""

from collections import Counter

from implicit_tuning.artifact import require_whole
from implicit_tuning.nodes import Node, NodePaths, Source
from implicit_tuning.plan import MEASURING, Plan, is_built
from implicit_tuning.tables import main
from implicit_tuning.tables.layout import readable

MEASURES = {"judge": "comparisons", "rank": "rankings", "similarity": "similarities"}


def preview_main(plan: Plan, paths: NodePaths) -> str:
    """Markdown of the main table so far, marked as unfinished, with all measures that lack."""
    nodes = [node for stage in MEASURING for node in plan.stage(stage)]
    built = [node for node in nodes if is_built(paths, node)]
    judged = [node for node in plan.comparisons() if node in built]
    for node in judged:
        require_whole(paths.folder(node), read_bytes=True)
    lines = [f"PREVIEW: {_counts(nodes, built)}.", ""]
    if judged:
        lines += [_main_so_far(plan.nodes["table", ("main",)], judged, paths), ""]
    lines += [f"gap: {node.name}" for node in nodes if node not in built]
    return "\n".join(lines)


def _counts(nodes: list[Node], built: list[Node]) -> str:
    """How many of each kind of measure stand."""
    stand, asked = (Counter(node.stage for node in some) for some in (built, nodes))
    return ", ".join(
        f"{stand[stage]} of {asked[stage]} {MEASURES[stage]}" for stage in MEASURING if asked[stage]
    )


def _main_so_far(table: Node, built: list[Node], paths: NodePaths) -> str:
    """The table as its node would build it, over the comparisons that stand."""
    inputs = {"/".join(node.levels): paths.folder(node) / "data" for node in built}
    calibration = table.upstream.get("calibration")
    if isinstance(calibration, Source):
        inputs["calibration"] = calibration.path
    settings = {k: v for k, v in table.settings.items() if k not in ("table", "module")}
    made = main.build(inputs, **settings)
    return (
        f"{made.caption}\n\n{readable(made.frame).to_markdown(index=False, disable_numparse=True)}"
    )
