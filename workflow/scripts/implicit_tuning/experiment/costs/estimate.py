"""What a plan costs: time, hours of cores and GPUs, disk, calls and money, before anything runs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from implicit_tuning.experiment.costs.assumptions import Assumed
from implicit_tuning.experiment.costs.endpoint_calls import Calls, calls_of
from implicit_tuning.experiment.costs.hardware import Hardware, hardware_of, threads_of
from implicit_tuning.experiment.costs.makespan import PlannedJob, makespan
from implicit_tuning.experiment.costs.rates import JobKind, Measured, Rates, kind_of, measure
from implicit_tuning.experiment.costs.storage import Storage, storage_of
from implicit_tuning.experiment.costs.workload import Work, Workload
from implicit_tuning.experiment.plan import Plan, is_built, pending
from implicit_tuning.nodes.node import LEVELS, Node, NodePaths

# Stages whose rules take `runtime.threads` cores; the others take one.
THREADED = frozenset({"pretrain", "finetune", "merge", "generate", "rank", "similarity"})
HOUR = 3600.0  # seconds


@dataclass(frozen=True)
class StageCosts:
    """One stage: nodes of the config, those that stand and those to do, and the work of the latter.

    `trained`, `generated` and `scored` are tokens; hours are those of cores and of GPUs.
    """

    stage: str
    nodes: int
    built: int
    waiting: int
    trained: float
    generated: float
    scored: float
    cpu_hours: float
    gpu_hours: float


@dataclass(frozen=True)
class Grid:
    """The experiment in the units of the paper, whatever of it stands already."""

    finetunes: int
    answers: float
    comparisons: int


@dataclass(frozen=True)
class Costs:
    """What a plan will take.

    `wall_seconds` is None where jobs need GPUs that the hardware does not describe. `measured` are
    the kinds of jobs whose time is scaled from finished ones.
    """

    hardware: Hardware
    grid: Grid
    stages: list[StageCosts]
    wall_seconds: float | None
    storage: Storage
    calls: list[Calls]
    measured: Mapping[JobKind, Measured]
    assumed: list[str]

    @property
    def gpu_usd(self) -> float | None:
        """Price of the GPUs; None where the config tells none, or the hours are not known."""
        price = self.hardware.usd_per_gpu_hour
        if price is None or self.wall_seconds is None:
            return None
        return price * sum(stage.gpu_hours for stage in self.stages)


def estimate_costs(plan: Plan, paths: NodePaths) -> Costs:
    """Costs of all that the plan still has to do."""
    hardware, assumed = hardware_of(plan.config.hardware), Assumed()
    workload = Workload(plan, paths, assumed)
    waiting = pending(plan, paths)
    works = {node: workload.of(node) for node in plan.nodes.values() if node in waiting}
    known = measure(plan, paths, hardware, {node.stage for node in works})
    rates = Rates(hardware, threads_of(plan.config, hardware), assumed, known)
    jobs = {node: _job(node, work, rates) for node, work in works.items()}
    kinds = dict.fromkeys(kind_of(node, work) for node, work in works.items())
    known_times = not any(math.isnan(job.seconds) for job in jobs.values())
    return Costs(
        hardware=hardware,
        grid=_grid(plan, workload),
        stages=[_stage(stage, plan, paths, works, jobs) for stage in LEVELS if plan.stage(stage)],
        wall_seconds=makespan(jobs, hardware.cores, hardware.gpus) if known_times else None,
        storage=storage_of(plan, works, workload, hardware),
        calls=calls_of(works, workload, paths),
        measured={kind: known[kind] for kind in kinds if kind in known},
        assumed=assumed.lines(),
    )


def _job(node: Node, work: Work, rates: Rates) -> PlannedJob:
    cores = work.processes * (rates.threads if node.stage in THREADED else 1)
    gpus = work.processes if work.device == "cuda" else 0
    return PlannedJob(rates.seconds(node, work), cores, gpus)


def _stage(
    stage: str,
    plan: Plan,
    paths: NodePaths,
    works: Mapping[Node, Work],
    jobs: Mapping[Node, PlannedJob],
) -> StageCosts:
    nodes = plan.stage(stage)
    waiting = [node for node in nodes if node in works]
    return StageCosts(
        stage=stage,
        nodes=len(nodes),
        built=sum(is_built(paths, node) for node in nodes),
        waiting=len(waiting),
        trained=sum(works[node].trained for node in waiting),
        generated=sum(works[node].generated for node in waiting),
        scored=sum(works[node].scored for node in waiting),
        cpu_hours=sum(_held(jobs[n], gpus=False) for n in waiting) / HOUR,
        gpu_hours=sum(_held(jobs[n], gpus=True) for n in waiting) / HOUR,
    )


def _held(job: PlannedJob, gpus: bool) -> float:
    """Seconds of cores, or of GPUs; a job on a GPU counts for that alone."""
    if gpus:
        return job.seconds * job.gpus
    return 0.0 if job.gpus else job.seconds * job.cores


def _grid(plan: Plan, workload: Workload) -> Grid:
    generations = [node for node in plan.stage("generate") if "instructions" in node.upstream]
    return Grid(
        finetunes=len(plan.stage("finetune")),
        answers=sum((workload.sizes.rows(n.above("instructions")) for n in generations), 0.0),
        comparisons=len(plan.stage("judge")),
    )
