"""The resumable state of an unfinished fine-tuning run: one safetensors file.

Weights, AdamW moments and progress stand in a single file, the progress as JSON in its header with a
sha256 over all of it, so that one rename makes a save complete or leaves the one before. Nothing is
pickled.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

logger = logging.getLogger(__name__)

STATE_FILE = "state.safetensors"
ADAMW_STATE = ("step", "exp_avg", "exp_avg_sq")  # of each parameter, as torch names them


@contextlib.contextmanager
def resumable(partial: Path) -> Iterator[Path]:
    """Yield the path of the folder's state file; remove the folder if all went well."""
    partial.mkdir(parents=True, exist_ok=True)
    yield partial / STATE_FILE
    shutil.rmtree(partial)


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
    header = {"identity": identity, "history": json.dumps(history)}
    header["sha256"] = _sha256(header["history"], tensors, tensors.get)
    unfinished = file.with_suffix(".unfinished")
    try:
        save_file(tensors, unfinished, header)
        with unfinished.open("rb") as written:
            os.fsync(written.fileno())
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def load_state(
    file: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, identity: str
) -> list[dict]:
    """Restore weights and AdamW moments; returns the history, empty where there is nothing to use.

    The log says from where the run resumes. A state that belongs to a run with another identity or
    is damaged is left alone, and the log says so too.
    """
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
            _restore(state.get_tensor, model, optimizer)
    except SafetensorError as error:
        logger.warning("%s is damaged (%s): not used", file, error)
        return []
    history = json.loads(header["history"])
    logger.warning("resuming after update %d, saved in %s", len(history), file)
    return history


def _restore(
    tensor: Callable[[str], torch.Tensor], model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            parameter.copy_(tensor(f"weight.{name}"))
        optimizer.state[parameter] = {
            key: tensor(f"{key}.{name}").to(parameter.device) for key in ADAMW_STATE
        }


def _sha256(history: str, names: Iterable[str], tensor: Callable[[str], torch.Tensor]) -> str:
    """sha256 over the history, and over names and bytes of tensors in the order of names."""
    digest = hashlib.sha256(history.encode())
    for name in sorted(names):
        digest.update(name.encode())
        digest.update(tensor(name).cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
