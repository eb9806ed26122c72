"""A process of `distributed.main` that is killed, as the second of its world, before update 4."""

import os
import signal
import sys
from pathlib import Path

from implicit_tuning.training import distributed
from implicit_tuning.training import run as training


def die_before(update: int) -> None:
    """Have this process kill itself if it is the second of its world."""
    step = training.TrainingRun._step

    def step_or_die(self, number, chosen):
        if number == update and self.accelerator.process_index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, number, chosen)

    training.TrainingRun._step = step_or_die


if __name__ == "__main__":
    die_before(4)
    distributed.main(Path(sys.argv[1]))
