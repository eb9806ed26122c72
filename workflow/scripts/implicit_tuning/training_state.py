"""The resumable state of an unfinished fine-tuning run: one safetensors file under one lock.

Weights, AdamW moments and progress stand in a single file, the progress as JSON in its header, so
that one rename makes a save complete or leaves the one before. Nothing is pickled.
"""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import safe_open
from safetensors.torch import save_file

logger = logging.getLogger(__name__)

STATE_FILE = "state.safetensors"
LOCK_FILE = "lock"
ADAMW_STATE = ("step", "exp_avg", "exp_avg_sq")  # of each parameter, as torch names them


@contextlib.contextmanager
def exclusive(partial: Path) -> Iterator[Path]:
    """Hold the folder's lock, yield the path of its state file; remove the folder if all went well.

    Where another process holds the lock, says so in the log and waits.
    """
    lock = FileLock(partial / LOCK_FILE)
    _wait_for(lock, partial)
    try:
        yield partial / STATE_FILE
        (partial / STATE_FILE).unlink(missing_ok=True)
        # A process that waits may just have made the lock file again: then the folder stays.
        shutil.rmtree(partial, ignore_errors=True)
    finally:
        lock.release()


def save_state(
    file: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: str,
    history: list[dict],
) -> None:
    """Replace the saved state in one step.

    Args:
        identity: digest of everything that decides the run's result.
        history: one record an update; its length is the number of updates done.
    """
    tensors = {}
    for name, parameter in model.named_parameters():
        tensors[f"weight.{name}"] = parameter.detach()
        tensors |= {f"{key}.{name}": optimizer.state[parameter][key] for key in ADAMW_STATE}
    unfinished = file.with_suffix(".unfinished")
    save_file(tensors, unfinished, {"identity": identity, "history": json.dumps(history)})
    with unfinished.open("rb") as written:
        os.fsync(written.fileno())
    unfinished.replace(file)


def load_state(
    file: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, identity: str
) -> list[dict]:
    """Restore weights and AdamW moments; returns the history, empty where there is nothing to use.

    The state of a run with another identity is left alone, and the log says so.
    """
    if not file.exists():
        return []
    with safe_open(file, framework="pt") as state:
        header = state.metadata()
        if header["identity"] != identity:
            logger.warning("%s belongs to another run (settings, rows or base): not used", file)
            return []
        for name, parameter in model.named_parameters():
            with torch.no_grad():
                parameter.copy_(state.get_tensor(f"weight.{name}"))
            optimizer.state[parameter] = {
                key: state.get_tensor(f"{key}.{name}").to(parameter.device) for key in ADAMW_STATE
            }
    return json.loads(header["history"])


def _wait_for(lock: FileLock, partial: Path) -> None:
    timeout = 0  # seconds; -1 is for ever
    while not lock.is_locked:
        partial.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=timeout)
        except Timeout:
            logger.warning("another process trains in %s: waiting until it ends", partial)
            timeout = -1
        except FileNotFoundError:
            continue  # whoever held the lock ended just now and removed the folder
