"""Seconds that a job takes for its work: by assumed rates, and scaled to what was measured."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from implicit_tuning.experiment.costs.assumptions import Assumed
from implicit_tuning.experiment.costs.hardware import GB, Hardware, threads_of
from implicit_tuning.experiment.costs.workload import Work, Workload
from implicit_tuning.experiment.plan import Plan, is_built
from implicit_tuning.nodes.artifact import BrokenArtifact, read_manifest
from implicit_tuning.nodes.node import Node, NodePaths
from implicit_tuning.reporting.usage import usage_by_stage

MB, GIGA, TERA, MILLI = 1e6, 1e9, 1e12, 1e-3
BENCHMARK_FILE = "benchmark.tsv"
# Stage, device and engine: jobs of one kind are measured together.
JobKind = tuple[str, str, str]


def kind_of(node: Node, work: Work) -> JobKind:
    """What a job is measured together with."""
    return node.stage, work.device, work.engine


@dataclass(frozen=True)
class Measured:
    """Finished jobs of one kind: how many, and their wall time over what is assumed for it."""

    jobs: int
    factor: float


@dataclass(frozen=True)
class Rates:
    """How fast jobs work.

    `threads` are the cores of a job that runs a model. `assumed` is asked for each rate that
    decides something.
    """

    hardware: Hardware
    threads: int
    assumed: Assumed
    measured: Mapping[JobKind, Measured] = field(default_factory=dict)

    def seconds(self, node: Node, work: Work) -> float:
        """Wall time of one job; NaN for one on GPUs that the hardware does not describe."""
        if known := self.measured.get(kind_of(node, work)):
            return known.factor * self._seconds(work, Assumed())
        return self._seconds(work, self.assumed)

    def _seconds(self, work: Work, assumed: Assumed) -> float:
        # What a job has nothing to do with is not assumed.
        parts = [
            assumed(_start(work)),
            self._computing(work, assumed),
            work.layer_steps and work.layer_steps * assumed("layer_ms") * MILLI,
            work.disk_bytes and work.disk_bytes / (assumed("disk_gb_per_s") * GB),
            work.network_bytes and work.network_bytes / (assumed("network_mb_per_s") * MB),
            work.calls_at_a_time and work.calls_at_a_time * assumed("call_s"),
        ]
        return sum(parts)

    def _computing(self, work: Work, assumed: Assumed) -> float:
        """Arithmetic, or the way of the weights from memory where that takes longer."""
        if not work.flops:
            return 0.0
        if work.device == "cuda":
            if not self.hardware.describes_gpus:
                return math.nan
            flops = self.hardware.gpu_tflops * TERA * assumed("gpu_share")
        else:
            flops = assumed("core_gflops") * GIGA * self.threads
        arithmetic = work.flops / (flops * work.processes)
        if not work.moved_bytes:
            return arithmetic
        if work.device == "cuda":
            moved = self.hardware.gpu_bandwidth_gb_per_s * GB * assumed("bandwidth_share")
        else:
            moved = assumed("host_gb_per_s") * GB
        return max(arithmetic, work.moved_bytes / moved)


def _start(work: Work) -> str:
    """Name of the assumption about the start of a job."""
    if work.engine == "vllm":
        return "vllm_start_s"
    if not work.engine:
        return "start_s"
    return "gpu_start_s" if work.device == "cuda" else "model_start_s"


def measure(
    plan: Plan, paths: NodePaths, hardware: Hardware, stages: Collection[str]
) -> dict[JobKind, Measured]:
    """What the benchmark files of finished jobs of these stages tell of each kind of job."""
    workload = Workload(plan, paths, Assumed())
    rates = Rates(hardware, threads_of(plan.config, hardware), Assumed())
    folders: dict[JobKind, dict[str, Path]] = {}
    modelled: dict[JobKind, float] = {}
    for node in (node for node in plan.nodes.values() if node.stage in stages):
        if folder := _measured_folder(node, paths):
            work = workload.of(node)
            kind = kind_of(node, work)
            folders.setdefault(kind, {})[node.name] = folder
            modelled[kind] = modelled.get(kind, 0.0) + rates.seconds(node, work)
    measured = {}
    for kind, by_name in folders.items():
        (usage,) = usage_by_stage(by_name)
        measured[kind] = Measured(len(by_name), usage.wall_seconds / modelled[kind])
    return measured


def _measured_folder(node: Node, paths: NodePaths) -> Path | None:
    """Folder of the node's run, or of its last one with the same settings under another key."""
    if is_built(paths, node):
        return paths.folder(node) if (paths.folder(node) / BENCHMARK_FILE).is_file() else None
    earlier = paths.results.joinpath("nodes", node.stage, *node.levels)
    files = sorted(earlier.glob(f"*/{BENCHMARK_FILE}"), key=lambda file: file.stat().st_mtime)
    runs = (file.parent for file in reversed(files))
    return next((run for run in runs if _has_settings(run, node.settings)), None)


def _has_settings(folder: Path, settings: Mapping) -> bool:
    try:
        return read_manifest(folder)["settings"] == settings
    except BrokenArtifact:
        return False
