"""Whether the GPUs, or the main memory, suffice for the jobs of a plan."""

import importlib.metadata
from collections.abc import Iterator, Mapping

from implicit_tuning.experiment.costs.hardware import GB, Gpu, Hardware, hardware_of, visible_gpus
from implicit_tuning.experiment.costs.memory import memory_needed
from implicit_tuning.experiment.costs.workload import Work, Workload
from implicit_tuning.nodes.node import Node

# The section of the config that decides what a job of a stage needs, and how it needs less.
SECTIONS = {
    "pretrain": ("pretrain_base", "take the shipped bases"),
    "finetune": (
        "training",
        "set activation_checkpointing, lower micro_batch_tokens, give lora, or take sharding fsdp",
    ),
    "merge": ("adaptations", "merge it on a larger machine, and give the merged model's path"),
    "generate": ("generation", "lower batch_size or max_new_tokens"),
    "rank": ("ranking", "lower batch_size or max_length"),
    "judge": ("judge", "take a smaller model, or dtype bfloat16"),
    "similarity": ("embedding", "take a smaller model"),
}
CPU_BUILD = "+cpu"


def gpu_problems(
    works: Mapping[Node, Work], workload: Workload, hardware: Hardware, cluster: bool
) -> list[str]:
    """Jobs for which there are no GPUs, too few, or too small ones.

    With `cluster`, the hardware is that of the config, not that of this machine.

    Raises:
        UnreadableGpus: the driver's tool does not tell.
    """
    jobs = {node: work for node, work in works.items() if work.device == "cuda"}
    if not jobs:
        return []
    gpus = [Gpu(hardware.name, hardware.gpu_memory_gb)] * hardware.gpus
    if not cluster:
        gpus = visible_gpus()
    if not gpus:
        return [_no_gpu(jobs, cluster)]
    found = []
    if not cluster and (version := importlib.metadata.version("torch")).endswith(CPU_BUILD):
        found = [f"device: 'cuda', but torch {version} has no CUDA: README.md says which one has"]
    processes = max(work.processes for work in jobs.values())
    if processes > len(gpus):
        found.append(
            f"training.world_size: {processes}, on {len(gpus)} GPUs: lower it, or add some"
        )
    smallest = min(gpus, key=lambda gpu: gpu.memory_gb)
    return [*found, *_too_large(jobs, workload, smallest.memory_gb * GB, f"GPU {smallest.name}")]


def _no_gpu(jobs: Mapping[Node, Work], cluster: bool) -> str:
    stages = ", ".join(dict.fromkeys(node.stage for node in jobs))
    if cluster:
        return (
            f"hardware.gpus: 0, but {stages} have device 'cuda': say how many GPUs the cluster has"
        )
    return (
        f"device: 'cuda' for {stages}, but no GPU is visible here: set it to 'cpu', or check for a "
        "cluster, from its login node, with CLUSTER=1"
    )


def host_problems(works: Mapping[Node, Work], workload: Workload, threads: int) -> list[str]:
    """Jobs on the CPU that this machine has too little memory for, as many as it runs at once."""
    import psutil

    jobs = {node: work for node, work in works.items() if work.device == "cpu" and work.engine}
    memory = psutil.virtual_memory().total
    at_once = max(1, min(hardware_of(None).cores // threads, len(jobs)))
    what = f"this machine, for each of {at_once} jobs at once of {threads} threads,"
    return list(_too_large(jobs, workload, memory / at_once, what))


def _too_large(
    jobs: Mapping[Node, Work], workload: Workload, memory: float, who: str
) -> Iterator[str]:
    """The largest job of each stage and base that needs more bytes of memory than there are."""
    largest: dict[tuple[str, str], float] = {}
    for node, work in jobs.items():
        kind = node.stage, node.level("base")
        largest[kind] = max(largest.get(kind, 0.0), memory_needed(node, work, workload))
    for (stage, base), need in largest.items():
        if need > memory:
            section, less = SECTIONS[stage]
            yield (
                f"{section}: {stage} on {base} needs up to {need / GB:,.1f} GB, and {who} has "
                f"{memory / GB:,.1f}: {less}"
            )
