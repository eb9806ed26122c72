"""A look at an unfinished grid: the main table over what is judged so far, every gap named."""

from implicit_tuning.artifact import require_whole
from implicit_tuning.nodes import NodePaths
from implicit_tuning.paper import in_order
from implicit_tuning.plan import Plan, controls, is_built, table_notes
from implicit_tuning.tables import main_table, read_comparison, readable, with_judge


def preview_main(plan: Plan, paths: NodePaths) -> str:
    """Markdown of the main table so far, marked as unfinished, with the comparisons it lacks."""
    nodes = plan.stage("judge")
    built = [node for node in nodes if is_built(paths, node)]
    for node in built:
        require_whole(paths.folder(node), read_bytes=True)
    gaps = [node for node in nodes if not is_built(paths, node)]
    lines = [f"PREVIEW: {len(built)} of {len(nodes)} comparisons are judged.", ""]
    if built:
        comparisons = [
            read_comparison("/".join(node.levels), paths.folder(node) / "data") for node in built
        ]
        config, node = plan.config, plan.nodes["table", ("main",)]
        calibration = node.upstream.get("calibration")
        label = with_judge(
            config.label,
            comparisons,
            node.settings["judge_is_truth"],
            calibration.path if calibration else None,
        )
        table = main_table(
            comparisons,
            in_order(config.adaptations, controls(config)),
            label,
            notes=table_notes(config),
        )
        lines += [readable(table).to_markdown(index=False, disable_numparse=True), ""]
    lines += [f"gap: {node.name}" for node in gaps]
    return "\n".join(lines)
