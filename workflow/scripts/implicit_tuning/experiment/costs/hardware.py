"""What an experiment runs on: as the config describes it, or as it is on this machine."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace

from implicit_tuning.experiment.config import Config

GB = 1e9
NVIDIA_SMI = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
SMI_TIMEOUT_S = 30


@dataclass(frozen=True)
class Hardware:
    """What a plan reckons with: the keys of `hardware` in the config, which explains them."""

    name: str
    gpus: int
    gpu_memory_gb: float
    gpu_tflops: float
    gpu_bandwidth_gb_per_s: float
    cores: int
    usd_per_gpu_hour: float | None

    @property
    def describes_gpus(self) -> bool:
        """Whether it has GPUs, and says how fast they are."""
        return min(self.gpus, self.gpu_tflops, self.gpu_bandwidth_gb_per_s) > 0


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine, with its memory in GB (10^9 bytes)."""

    name: str
    memory_gb: float


class UnreadableGpus(RuntimeError):
    """The driver's tool is there, but does not tell which GPUs are."""


def hardware_of(section: Mapping | None) -> Hardware:
    """The config's hardware; without one, this machine, of whose GPUs nothing is known.

    `cores: null` are those that this process may use.
    """
    here = Hardware("this machine", 0, 0, 0, 0, len(os.sched_getaffinity(0)), None)
    given = {key: value for key, value in (section or {}).items() if value is not None}
    return replace(here, **given)


def threads_of(config: Config, hardware: Hardware) -> int:
    """Cores of a job that runs a model: Snakemake gives none more than there are."""
    return min(config.runtime["threads"], hardware.cores)


def visible_gpus() -> list[Gpu]:
    """The GPUs of this machine that a job would see, by the driver's own tool; torch is not asked,
    for its import takes seconds.

    Raises:
        UnreadableGpus: nvidia-smi fails.
    """
    if shutil.which(NVIDIA_SMI[0]) is None:
        return []
    try:
        answer = subprocess.run(
            NVIDIA_SMI, capture_output=True, text=True, check=True, timeout=SMI_TIMEOUT_S
        )
        rows = [line.rsplit(",", 1) for line in answer.stdout.splitlines() if line.strip()]
        gpus = [Gpu(name.strip(), float(memory) * 2**20 / GB) for name, memory in rows]
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        raise UnreadableGpus(f"nvidia-smi does not tell which GPUs there are ({error})") from None
    return _chosen(gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))


def _chosen(gpus: list[Gpu], visible: str | None) -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES leaves; by number, or as many as it names by UUID."""
    if visible is None:
        return gpus
    names = [name.strip() for name in visible.split(",") if name.strip()]
    if all(name.isdigit() for name in names):
        return [gpus[int(name)] for name in names if int(name) < len(gpus)]
    return gpus[: len([name for name in names if name != "-1"])]
