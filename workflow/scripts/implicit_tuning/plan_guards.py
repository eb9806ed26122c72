"""Nodes of guarded runs: a run's answers, kept to its task by a guard."""

from dataclasses import replace
from typing import TYPE_CHECKING

from implicit_tuning.guards.kinds import KINDS, guard_code, identity_settings
from implicit_tuning.nodes import Code, Node

if TYPE_CHECKING:
    from implicit_tuning.plan_runs import RunPlanner


def guarded_node(planner: "RunPlanner", run: Node, name: str, seed: int) -> Node:
    """The answers of a run under a guard, which has all of the run but its own settings.

    Args:
        run: the run's own answers.
        name: the guard's adaptation.
        seed: of the run; a checkpoint of elsewhere has none in its levels.
    """
    base, adaptation, *others = run.levels
    guard = identity_settings(planner.plan.adaptations[name]["guard"])
    levels, own = (base, name, *others), {"generator": name, "guard": guard}
    if KINDS[guard["kind"]].decodes:
        code = guard_code(guard["kind"], run.code)
        return replace(run, levels=levels, code=code, settings={**run.settings, **own})
    folder, embedding, libraries = planner.embedder()
    upstream = {"outputs": run, "task_rows": planner.task_rows(base, adaptation, seed), **folder}
    code = guard_code(guard["kind"], Code((), libraries))
    return Node("generate", levels, code, {**own, "embedding": embedding}, upstream)
