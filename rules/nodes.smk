# Needs: the config. Makes: the functions by which every rule finds its node's inputs and spec.
import functools
import gc
import re

from implicit_tuning.nodes.job import job_spec
from implicit_tuning.experiment.config import ConfigError
from implicit_tuning.experiment.config_reading import load_config
from implicit_tuning.nodes.digests import DigestMemory
from implicit_tuning.nodes.gpus import gpus_needed
from implicit_tuning.nodes.code import short_hash
from implicit_tuning.nodes.node import (
    LEVELS,
    RELEASABLE,
    RELEASED_MARKER,
    WEIGHTS_MARKER,
    Node,
    NodePaths,
    KeyNotKnown,
    folder_pattern,
)
from implicit_tuning.experiment.plan import is_built
from implicit_tuning.experiment.planners.all_nodes import build_plan
from implicit_tuning.experiment.preflight.checks import cheap_problems
from implicit_tuning.experiment.stable_names import COPIED, plan_stable_names
from snakemake.exceptions import WorkflowError

# A plan of 3,000 jobs is 400,000 objects that live on, which the garbage collector would visit over
# and over, for a quarter of the time.
gc.freeze()
gc.set_threshold(50_000)

RESULTS = Path("results")
ENVIRONMENT = str(ROOT / "environment.yml")
TRIGGERS = "mtime"

try:
    EXPERIMENT = load_config(config, ROOT)
    PLAN = build_plan(EXPERIMENT, DigestMemory(RESULTS / "cache" / "digests.json"))
except (ConfigError, ModuleNotFoundError) as error:
    raise WorkflowError(str(error)) from None
PATHS = NodePaths(RESULTS)
GIVE_UP_CHECKPOINTS = not EXPERIMENT.runtime["keep_checkpoints"]
# Read by torch when it is imported; the jobs inherit it.
os.environ.update(OMP_NUM_THREADS=str(EXPERIMENT.runtime["threads"]))


def one_of(names):
    """Wildcard constraint: exactly these names (none: nothing matches)."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    base=one_of(EXPERIMENT.bases),
    dataset=one_of(EXPERIMENT.datasets),
    repository=one_of(node.level("repository") for node in PLAN.stage("fetch")),
    adaptation=one_of(PLAN.adaptations),
    seed="none|[0-9]+",
    reference_seed="none|[0-9]+",
    judge=one_of(EXPERIMENT.judges),
    key="[0-9a-f]+",


# profiles/default lets one job at a time use the GPU of this machine; a cluster counts its own.
resource_scopes:
    gpu="local",


def file_of(stage, name):
    """Pattern of a file in the folders of a stage."""
    return f"{folder_pattern(RESULTS, stage)}/{name}"


def marker_output(stage, name):
    """Output of a rule: a file that says that a job is done.

    `update`: Snakemake must not delete it before the job, for another run over the same results may
    just have made it, and goes on from there.
    """
    return update(file_of(stage, name))


@functools.cache
def refuse_other_triggers():
    """Keys carry every change, so another trigger would rerun what is up to date."""
    triggers = {str(trigger) for trigger in workflow.rerun_triggers}
    if triggers != {TRIGGERS}:
        raise WorkflowError(
            f"rerun-triggers is {', '.join(sorted(triggers))}, but must be '{TRIGGERS}': keep "
            "profiles/default (add to it with --profile; --workflow-profile replaces it)"
        )


def when_known(question, *nodes):
    """Answer a question that needs keys, or tell Snakemake which cut-off to build first."""
    refuse_other_triggers()
    try:
        return question(*nodes)
    except KeyNotKnown as missing:
        stage = missing.node.stage
        levels = dict(zip(LEVELS[stage], missing.node.levels))
        getattr(checkpoints, stage).get(**levels, key=PATHS.key(missing.node))
        # Only reached when a manifest stands that cannot be read, or is gone again.
        raise WorkflowError(f"{PATHS.manifest(missing.node)} is damaged: run 'make repair'")


def node_of(stage, wildcards):
    """The node that a path of this config means."""
    levels = tuple(getattr(wildcards, level) for level in LEVELS[stage])
    node = PLAN.find(stage, levels)
    name = "/".join((stage, *levels))
    if node is None:
        raise WorkflowError(f"{name}: the config asks for no such node")
    key = when_known(PATHS.key, node)
    if key != wildcards.key:
        raise WorkflowError(
            f"{name}: its key is {key} under the present code and config, not {wildcards.key}"
        )
    return node


@functools.cache
def existed_at_start(file):
    """Whether a file stood when this run first asked for it."""
    return os.path.isfile(file)


def only_reports():
    """Whether Snakemake only reports or draws, and runs nothing."""
    return workflow.execution_settings is None


def inputs_that_can_change(files):
    """Files of nodes as inputs.

    A run leaves out what stood before it: that could start nothing, and each would cost Snakemake a
    job in its plan, two below a checkpoint. What it makes itself stays, since a job on another
    machine must wait until it sees it there. Reports and drawings get all files, as `ancient`: no
    time stamp makes a node look stale. A run must not use `ancient`: when a checkpoint is done while
    a job has just written its manifest and not yet ended, Snakemake drops all that waits for it.
    """
    files = map(str, files)
    return (
        [ancient(f) for f in files]
        if only_reports()
        else [f for f in files if not existed_at_start(f)]
    )


def manifests(nodes):
    """Manifests of nodes."""
    return inputs_that_can_change(when_known(PATHS.manifest, node) for node in nodes)


def missing_inputs(node, files):
    """What a node still needs of these files: nothing where it stands, whatever is made above it.

    A missing one is rebuilt when somebody needs it.
    """
    if not is_built(PATHS, node):
        return files
    return [file for file in files if Path(file).is_file()] if only_reports() else []


def upstream_of(stage):
    """Input function: manifests of what a node reads."""

    def inputs(wildcards):
        node = node_of(stage, wildcards)
        above = [a for a in node.upstream.values() if isinstance(a, Node)]
        return missing_inputs(node, manifests(above))

    return inputs


def weights_of(stage):
    """Input function: the marker that the checkpoint that a node loads has its weights."""

    def inputs(wildcards):
        node = node_of(stage, wildcards)
        above = [a for a in node.upstream.values() if isinstance(a, Node)]
        return missing_inputs(node, weights_markers(a for a in above if a.stage in RELEASABLE))

    return inputs


def weights_markers(nodes):
    """Markers that checkpoints have their weights."""
    return inputs_that_can_change(when_known(PATHS.weights, node) for node in nodes)


def checkpoints_held(wildcards):
    """Resources function: 1 for a job for which a checkpoint lies on disk that will be given up.

    `--resources checkpoints=N` so bounds how many lie there at once: the jobs that load them go
    before other finetunes (see their priorities).
    """
    return int(GIVE_UP_CHECKPOINTS and wildcards.seed != "none")


def gpus_of(stage):
    """Resources function: how many GPUs a node computes on, 0 for one on the CPU."""

    def gpus(wildcards):
        return gpus_needed(node_of(stage, wildcards).settings)

    return gpus


def threads_of_finetune(wildcards):
    """Threads function: those of the config for each of the processes that train together."""
    training = node_of("finetune", wildcards).settings["training"]
    return training["world_size"] * EXPERIMENT.runtime["threads"]


def releases(wildcards):
    """Input function: asks to give up the weights of every checkpoint that still has them."""
    markers = []
    for node in PLAN.stage("finetune") if GIVE_UP_CHECKPOINTS else []:
        served = all(is_built(PATHS, reader) for reader in PLAN.loading(node))
        if not served or when_known(PATHS.weights, node).is_file():
            markers.append(str(when_known(PATHS.folder, node) / RELEASED_MARKER))
    return markers


def loading(wildcards):
    """Input function: manifests of all nodes that load a checkpoint."""
    return manifests(PLAN.loading(node_of("finetune", wildcards)))


def spec_of(stage):
    """Params function: the job's spec as one JSON string."""

    def spec(wildcards):
        return when_known(lambda node: job_spec(PATHS, node), node_of(stage, wildcards))

    return spec


def with_weights(nodes):
    """Manifests of nodes, and the markers of those that are to have their weights too."""
    return manifests(nodes) + weights_markers(n for n in nodes if n.stage in RELEASABLE)


def folder_of(stage):
    """Params function: folder of a node."""

    def folder(wildcards):
        return str(when_known(PATHS.folder, node_of(stage, wildcards)))

    return folder


def milestone(stage):
    """Input function: manifests of all nodes of a stage, and their weights where they have any."""

    def inputs(wildcards):
        return with_weights(PLAN.stage(stage))

    return inputs


def measured_group(group):
    """Input function: asks for one way to measure the runs of one data set while any is missing.

    One request a data set lets all others go on when one formatter fails: tables wait for all.
    """

    def inputs(wildcards):
        nodes = PLAN.groups()[group]
        if all(is_built(PATHS, node) for node in nodes):
            return []
        key = short_hash([node.plan_key for node in nodes])
        return measured_marker(group, key)

    return inputs


def require_writable_results():
    """Refuse to start jobs that could not keep what they make."""
    for folder in (RESULTS, RESULTS / "nodes"):
        if folder.exists() and not os.access(folder, os.W_OK):
            raise WorkflowError(
                f"{folder.resolve()} cannot be written to, so no job was started: mount it for "
                "writing, or change its permissions"
            )


def require_possible():
    """Refuse to start jobs of which some are known to fail: what `make check` finds without asking
    anybody."""
    problems = cheap_problems(PLAN, PATHS)
    if problems:
        lines = "\n".join(f"  - {problem}" for problem in problems)
        raise WorkflowError(f"no job was started:\n{lines}")


def measured_marker(group, key):
    """A file that Snakemake makes and deletes within a run: not in the results, which runs share."""
    return f".snakemake/measured/{group}.{key}"


def measures_of_group(wildcards):
    """Input function: manifests of what measures the runs of one data set."""
    return manifests(PLAN.groups()[wildcards.group])


def finetunes_of(way):
    """Input function: finetunes by instruction tuning, response tuning or on a single task."""

    def inputs(wildcards):
        return with_weights(
            [n for n in PLAN.stage("finetune") if PLAN.way(n.level("adaptation")) == way]
        )

    return inputs


def stable_names_stamp(wildcards):
    """Input function: the stamp that says that the stable copies are those of this config."""
    return str(when_known(lambda: plan_stable_names(PLAN, PATHS)).wanted_stamp())


def folders_by_name(wildcards):
    """Params function: folder of every node of this config, by its name."""
    names = when_known(lambda: plan_stable_names(PLAN, PATHS))
    return {name: str(folder) for name, folder in names.nodes.items()}


def copied_manifests(wildcards):
    """Input function: manifests of all that has a stable name."""
    return manifests([node for stage in COPIED for node in PLAN.stage(stage)])
