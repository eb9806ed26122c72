"""Finetunes by two processes on one machine."""

from dataclasses import replace

from implicit_tuning.training.distributed import (
    finetune_in_processes,
)
from training_runs import FORMAT, SETTINGS

# The last update of an epoch has one example for two processes, and a process several passes. Some
# gradients are longer than the clip and some are not, so that their length shows in the weights.
ONE = replace(SETTINGS, batch_examples=3, micro_batch_tokens=80, gradient_clip=8.0)
TWO = replace(ONE, world_size=2)


def run_in_processes(base, rows, folder, settings=TWO, name="tuned"):
    return finetune_in_processes(
        base, rows, folder / name, folder / "partial", 1, FORMAT, settings, 2
    )
