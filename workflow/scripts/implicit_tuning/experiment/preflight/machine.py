"""Whether disk, libraries and engines that a plan needs are there."""

import importlib.metadata
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from implicit_tuning.experiment.costs.hardware import GB
from implicit_tuning.experiment.costs.storage import Storage
from implicit_tuning.generation.engines.engine import VLLM_PYTHON
from implicit_tuning.nodes.node import Node

# The key that makes a library necessary.
NEEDS = {"deepspeed": "training.sharding: 'zero3'", "peft": "training.lora"}


def missing_libraries(nodes: Iterable[Node]) -> Iterator[str]:
    """Libraries that decide results and are not installed: without them there are no keys."""
    wanted = {library: node.stage for node in nodes for library in node.code.libraries}
    for library, stage in sorted(wanted.items()):
        try:
            importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            needs = NEEDS.get(library, stage)
            yield f"{needs} needs {library}, which is not installed: run 'pip install {library}'"


def unwritable(results: Path) -> Iterator[str]:
    """Results that cannot be written to."""
    for folder in (results, results / "nodes"):
        if folder.exists() and not os.access(folder, os.W_OK):
            yield f"results: '{folder}' cannot be written to: change its permissions"


def too_little_disk(storage: Storage, results: Path) -> Iterator[str]:
    """A plan whose peak does not fit on the disk of the results."""
    free = free_disk(results)
    if storage.peak > free:
        yield (
            f"results: the run needs up to {storage.peak / GB:,.1f} GB more, and the disk of "
            f"'{results}' has {free / GB:,.1f} GB free: free some, put results on a larger disk, "
            "set runtime.keep_checkpoints to false, or lower hardware.gpus to what trains at once"
        )


def free_disk(results: Path) -> int:
    """Bytes that are free on the disk of the results, which need not exist yet."""
    folder = results.resolve()
    return shutil.disk_usage(next(f for f in (folder, *folder.parents) if f.exists())).free


def missing_vllm(nodes: Iterable[Node], python: str | None) -> Iterator[str]:
    """An engine in an environment that is not there."""
    python = python or os.environ.get(VLLM_PYTHON)
    decoding = [node.settings.get("generation") for node in nodes if node.stage == "generate"]
    if not any(settings is not None and settings["engine"] == "vllm" for settings in decoding):
        return
    if python is None:
        yield (
            "runtime.vllm_python: null, and generation.engine is 'vllm': give the Python of the "
            f"environment that vLLM is installed in (environment-vllm.yml), here or in {VLLM_PYTHON}"
        )
    elif shutil.which(python) is None:
        yield f"runtime.vllm_python: '{python}' is no program: give the Python that has vLLM"
