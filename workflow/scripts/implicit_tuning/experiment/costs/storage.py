"""The disk that a plan needs at its peak, on top of what lies there already."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import yaml

from implicit_tuning.experiment.costs.hardware import Hardware, threads_of
from implicit_tuning.experiment.costs.workload import Workload
from implicit_tuning.experiment.plan import Plan
from implicit_tuning.nodes.code import SCRIPTS
from implicit_tuning.nodes.node import Node

PROFILE = SCRIPTS.parents[1] / "profiles" / "default" / "config.yaml"
# A save is written beside the one before, which it then replaces.
SAVES_AT_ONCE = 2


@dataclass(frozen=True)
class Storage:
    """Bytes on disk at the peak of a plan.

    Attributes:
        checkpoints: weights of finetuned runs, and of bases with an adapter, that lie there at once;
            `n_checkpoints` of them.
        states: resumable states of the runs that train at once, and the saves that replace them;
            `n_states` runs.
        downloads: data sets and models from elsewhere; `n_unknown` of them are not locked, so their
            size is not known.
    """

    checkpoints: float
    n_checkpoints: int
    states: float
    n_states: int
    downloads: float
    n_unknown: int

    @property
    def peak(self) -> float:
        """All of them together."""
        return self.checkpoints + self.states + self.downloads


def storage_of(
    plan: Plan, waiting: Collection[Node], workload: Workload, hardware: Hardware
) -> Storage:
    """What the nodes that wait will leave on disk. Answers, verdicts and tables are not counted."""
    finetunes = [node for node in waiting if node.stage == "finetune"]
    kept = len(finetunes)
    if not plan.config.runtime["keep_checkpoints"]:
        kept = min(kept, checkpoints_at_once())
    checkpoints = sorted(map(workload.checkpoint_bytes, finetunes), reverse=True)[:kept]
    checkpoints += [workload.checkpoint_bytes(node) for node in waiting if node.stage == "merge"]
    training = _runs_at_once(finetunes, hardware, threads_of(plan.config, hardware))
    states = sorted(map(workload.state_bytes, finetunes), reverse=True)[:training]
    sizes = [workload.source_bytes(n) for n in waiting if n.stage in ("download", "fetch")]
    return Storage(
        checkpoints=sum(checkpoints),
        n_checkpoints=len(checkpoints),
        states=SAVES_AT_ONCE * sum(states),
        n_states=training,
        downloads=sum(size or 0.0 for size in sizes),
        n_unknown=sizes.count(None),
    )


def checkpoints_at_once() -> int:
    """How many checkpoints the default profile lets lie on disk, where they are given up."""
    resources = yaml.safe_load(PROFILE.read_text(encoding="utf-8"))["resources"]
    values: Mapping[str, str] = dict(resource.split("=") for resource in resources)
    return int(values["checkpoints"])


def _runs_at_once(finetunes: list[Node], hardware: Hardware, threads: int) -> int:
    """How many runs train at once, at most."""
    at_once = 0
    for training in (node.settings["training"] for node in finetunes):
        if training["device"] == "cuda":
            places = hardware.gpus // training["world_size"]
        else:
            places = max(1, hardware.cores // (threads * training["world_size"]))
        at_once = max(at_once, places, 1)
    return min(at_once, len(finetunes))
