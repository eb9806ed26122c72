"""Everything that can be known to go wrong, found before the first job.

`preflight` asks sources and endpoints, for nothing that costs; `cheap_problems` asks nobody. Each
problem is one line with key, value and fix.
"""

from dataclasses import dataclass

from implicit_tuning.experiment.costs.assumptions import Assumed
from implicit_tuning.experiment.costs.endpoint_calls import endpoint_of
from implicit_tuning.experiment.costs.hardware import GB, UnreadableGpus, hardware_of
from implicit_tuning.experiment.costs.storage import storage_of
from implicit_tuning.experiment.costs.workload import Workload
from implicit_tuning.experiment.plan import Plan, pending
from implicit_tuning.experiment.preflight.endpoints import endpoint_problems
from implicit_tuning.experiment.preflight.machine import (
    free_disk,
    missing_libraries,
    missing_vllm,
    too_little_disk,
    unwritable,
)
from implicit_tuning.experiment.preflight.memory import gpu_problems, host_problems
from implicit_tuning.experiment.preflight.sources import (
    licences,
    missing_tokens,
    not_locked,
    sources_of,
    unreachable,
)
from implicit_tuning.nodes.node import NodePaths


@dataclass(frozen=True)
class Preflight:
    """What is wrong with a plan, and what was looked at, a line each."""

    problems: list[str]
    checked: list[str]


class _Pending:
    """What is still to do, and what it needs from outside."""

    def __init__(self, plan: Plan, paths: NodePaths) -> None:
        found = pending(plan, paths)
        self.nodes = [node for node in plan.nodes.values() if node in found]
        self.workload = Workload(plan, paths, Assumed())
        self.hardware = hardware_of(plan.config.hardware)
        self.sources = sources_of(self.nodes, plan.config)
        self.storage = storage_of(plan, self.nodes, self.workload, self.hardware)


def cheap_problems(plan: Plan, paths: NodePaths) -> list[str]:
    """What is missing for the nodes that are still to do: a token, a pin, room on the disk.

    Nobody is asked, and nothing but manifests is read.
    """
    return _cheap_problems(_Pending(plan, paths), paths)


def preflight(plan: Plan, paths: NodePaths, cluster: bool) -> Preflight:
    """Look at everything that the nodes which are still to do need.

    With `cluster`, the hardware is that of the config, not that of this machine.
    """
    if problems := [*missing_libraries(plan.nodes.values()), *unwritable(paths.results)]:
        return Preflight(problems, [])  # without libraries there are no keys: who knows what stands
    waiting = _Pending(plan, paths)
    problems = [
        *_cheap_problems(waiting, paths),
        *unreachable(waiting.sources),
        *endpoint_problems(waiting.nodes),
        *missing_vllm(waiting.nodes, plan.config.runtime.get("vllm_python")),
        *_machine_problems(waiting, plan, cluster),
    ]
    checked = [*_checked(waiting, paths), *_not_measured(plan), *licences(plan)]
    return Preflight(problems, checked)


def _cheap_problems(waiting: _Pending, paths: NodePaths) -> list[str]:
    return [
        *missing_tokens(waiting.sources),
        *not_locked(waiting.sources),
        *too_little_disk(waiting.storage, paths.results),
    ]


def _machine_problems(waiting: _Pending, plan: Plan, cluster: bool) -> list[str]:
    works = {node: waiting.workload.of(node) for node in waiting.nodes}
    threads = plan.config.runtime["threads"]
    try:
        found = gpu_problems(works, waiting.workload, waiting.hardware, cluster)
    except UnreadableGpus as error:
        found = [f"device: 'cuda': {error}: see to the driver, or set it to 'cpu'"]
    return found if cluster else found + host_problems(works, waiting.workload, threads)


def _not_measured(plan: Plan) -> list[str]:
    """Similarity that the config asks for, and that lacks what it is held against."""
    config = plan.config
    if config.embedding is None or "data" in config.adaptations[config.reference]:
        return []
    reference = f"adaptations.{config.reference}"
    return [
        f"similarity: not measured, for {reference}, the reference, has no 'data' to compare with"
    ]


def _checked(waiting: _Pending, paths: NodePaths) -> list[str]:
    endpoints = dict.fromkeys(filter(None, map(endpoint_of, waiting.nodes)))
    peak, free = waiting.storage.peak / GB, free_disk(paths.results) / GB
    return [
        f"to do: {len(waiting.nodes)} nodes",
        f"sources to fetch: {', '.join(source.key for source in waiting.sources) or 'none'}",
        f"endpoints to ask: {', '.join(endpoints) or 'none'}",
        f"disk: up to {peak:,.1f} GB of {free:,.1f} GB that are free",
    ]
