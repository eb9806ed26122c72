"""A run of the config by the name that people give it, base/adaptation/seed, and its model."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from implicit_tuning.experiment.config import suggest
from implicit_tuning.experiment.plan import Plan, is_built
from implicit_tuning.experiment.planners.runs import NO_SEED
from implicit_tuning.nodes.artifact import require_whole
from implicit_tuning.nodes.node import RELEASABLE, KeyNotKnown, Node, NodePaths, Source

# The target of make that builds the finetunes of each way.
MILESTONES = {"instruction": "train_ins", "response": "train_resp", "single_task": "train_task"}


class NotBuilt(LookupError):
    """A model is not built, or its weights were given up; the message says how to get it."""


def find_run(plan: Plan, name: str) -> Node:
    """The generation of a run on the evaluation set, which knows its model and settings.

    Args:
        name: base/adaptation/seed; without a seed where the run has none, or one alone.

    Raises:
        LookupError: there is no such run; with the closest one, or the seeds to choose from.
    """
    runs = {
        run_name(node): node
        for node in plan.stage("generate")
        if node.level("evaluation") == plan.config.evaluation
        and node.level("adaptation") not in plan.sweeps
    }
    name = name.strip("/").removesuffix(f"/{NO_SEED}")
    seeds = [known for known in runs if known.startswith(f"{name}/")]
    if name not in runs and len(seeds) == 1:
        return runs[seeds[0]]
    if name not in runs:
        help_ = f"give a seed: {', '.join(sorted(seeds))}" if seeds else suggest(name, runs)
        raise LookupError(f"RUN: '{name}' is no run of this config; {help_}")
    return runs[name]


def run_name(node: Node) -> str:
    """base/adaptation/seed of a node of a run, without the seed where it has none."""
    base, adaptation, seed = node.run
    return "/".join((base, adaptation) if seed == NO_SEED else (base, adaptation, seed))


def require_model(plan: Plan, paths: NodePaths, run: Node, options: Sequence[str]) -> Node | Source:
    """What holds the weights that a run's answers come from.

    Args:
        options: of Snakemake, that name the config; for the command in the message.

    Raises:
        LookupError: the run's answers come from no model of its own.
        NotBuilt: the model is not built.
    """
    model = run.upstream.get("model")
    if model is None or "guard" in run.settings:
        other = plan.adaptations[run.level("adaptation")]["of"]
        raise LookupError(
            f"RUN: '{run_name(run)}' has no model of its own: take the run of '{other}', which its "
            "answers are made of"
        )
    if isinstance(model, Node) and not _has_weights(paths, model):
        command = _command(plan, paths, model, options)
        raise NotBuilt(f"{model.name} is not built: build it with '{command}'")
    return model


def checked_folder(paths: NodePaths, model: Node | Source) -> Path:
    """The model folder, every byte compared with its manifest where it has one.

    Raises:
        BrokenArtifact: names each damaged file.
    """
    if isinstance(model, Source):
        return model.path
    require_whole(paths.folder(model), read_bytes=True)
    return paths.folder(model) / "data"


def _has_weights(paths: NodePaths, model: Node) -> bool:
    if not is_built(paths, model):
        return False
    return model.stage not in RELEASABLE or paths.weights(model).is_file()


def _command(plan: Plan, paths: NodePaths, model: Node, options: Sequence[str]) -> str:
    """The command that builds one model, or all of its kind while its key is not known yet."""
    try:
        target = paths.weights(model) if model.stage in RELEASABLE else paths.manifest(model)
    except KeyNotKnown:
        target = Path(MILESTONES[plan.way(model.level("adaptation"))])
    return shlex.join([".venv/bin/snakemake", "--cores", "all", *options, "--", str(target)])
