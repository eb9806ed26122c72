"""The resumable state of an unfinished fine-tuning run: one safetensors file.

Trained weights, AdamW moments and progress stand in a single file, the progress as JSON in its header
with a sha256 over all of it, so that one rename makes a save complete or leaves the one before.
Nothing is pickled. Several processes hold the same state, or parts of it: all gather it, the first
one writes, and all read.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from implicit_tuning.training.sharding import restore, trained_parameters, whole_state

logger = logging.getLogger(__name__)

STATE_FILE = "state.safetensors"


@contextlib.contextmanager
def resumable(partial: Path, accelerator: Accelerator) -> Iterator[Path]:
    """Yield the path of the folder's state file; remove the folder if all went well."""
    if accelerator.is_main_process:
        partial.mkdir(parents=True, exist_ok=True)
    yield partial / STATE_FILE
    if accelerator.is_main_process:
        shutil.rmtree(partial)


def save_state(
    file: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: str,
    history: list[dict],
    accelerator: Accelerator,
) -> None:
    """Replace the saved state in one step. All processes call it.

    `identity` is a digest of everything that decides the run's result. `history` has one record an
    update.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in trained_parameters(model):
        state = whole_state(parameter, optimizer, len(history))
        if accelerator.is_main_process:
            tensors |= {f"{key}.{name}": tensor.cpu() for key, tensor in state.items()}
    if accelerator.is_main_process:
        _write(file, tensors, identity, history)


def load_state(
    file: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: str,
    accelerator: Accelerator,
) -> list[dict]:
    """Restore weights and AdamW moments; returns the history, empty where there is nothing to use.

    The log says from where the run resumes. A state that belongs to a run with another identity or
    is damaged is left alone, and the log says so too. All processes call it; the first one decides.
    """
    found = [_usable_history(file, identity) if accelerator.is_main_process else None]
    (history,) = broadcast_object_list(found)
    if history:
        with safe_open(file, framework="pt") as state:
            for name, parameter in trained_parameters(model):
                restore(parameter, optimizer, partial(_tensor, state, name))
    return history


def _tensor(state: safe_open, name: str, key: str) -> torch.Tensor:
    return state.get_tensor(f"{key}.{name}")


def _write(
    file: Path, tensors: dict[str, torch.Tensor], identity: str, history: list[dict]
) -> None:
    header = {"identity": identity, "history": json.dumps(history)}
    header["sha256"] = _sha256(header["history"], tensors, tensors.__getitem__)
    unfinished = file.with_suffix(".unfinished")
    try:
        save_file(tensors, unfinished, header)
        with unfinished.open("rb") as written:
            os.fsync(written.fileno())
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def _usable_history(file: Path, identity: str) -> list[dict]:
    if not file.exists():
        return []
    try:
        with safe_open(file, framework="pt") as state:
            header = state.metadata()
            if header["identity"] != identity:
                logger.warning("%s belongs to another run (settings, rows or base): not used", file)
                return []
            if _sha256(header["history"], state.keys(), state.get_tensor) != header["sha256"]:
                raise SafetensorError("it has other bytes than were saved")
    except SafetensorError as error:
        logger.warning("%s is damaged (%s): not used", file, error)
        return []
    history = json.loads(header["history"])
    logger.warning("resuming after update %d, saved in %s", len(history), file)
    return history


def _sha256(history: str, names: Iterable[str], tensor: Callable[[str], torch.Tensor]) -> str:
    """sha256 over the history, and over names and bytes of tensors in the order of names."""
    digest = hashlib.sha256(history.encode())
    for name in sorted(names):
        digest.update(name.encode())
        digest.update(tensor(name).contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
