"""Which GPUs of a machine a job takes, where no cluster deals them out.

Jobs on one machine take different GPUs by locks, one file a GPU, that end with the process.
"""

import contextlib
import getpass
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

VISIBLE = "CUDA_VISIBLE_DEVICES"
# Set in every SLURM job, whose GPUs are its own and numbered anew.
OF_A_CLUSTER = "SLURM_JOB_ID"
POLL_SECONDS = 1.0


def gpus_needed(settings: Mapping[str, object]) -> int:
    """How many GPUs a node computes on, 0 for one on the CPU.

    A node has at most one section of settings with a `device`; a finetune's tells its `world_size`.
    """
    sections = (value for value in settings.values() if isinstance(value, Mapping))
    on_gpu = (section for section in sections if section.get("device") == "cuda")
    return max((section.get("world_size", 1) for section in on_gpu), default=0)


@contextlib.contextmanager
def claimed_gpus(count: int) -> Iterator[None]:
    """Let this process, and those it starts, see `count` GPUs that no other job has; waits for them.

    Nothing is done for no GPU, in a job of a cluster, and where fewer are there than are needed:
    that error is the job's own to raise.
    """
    gpus = _present() if count and OF_A_CLUSTER not in os.environ else []
    if not count or len(gpus) < count:
        yield
        return
    before = os.environ.get(VISIBLE)
    with contextlib.ExitStack() as held:
        os.environ[VISIBLE] = ",".join(_claim(gpus, count, held))
        try:
            yield
        finally:
            os.environ.pop(VISIBLE) if before is None else os.environ.update({VISIBLE: before})


def _present() -> list[str]:
    """The GPUs that this process may use, as CUDA names them."""
    if VISIBLE in os.environ:
        return [name.strip() for name in os.environ[VISIBLE].split(",") if name.strip()]
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


def _claim(gpus: list[str], count: int, held: contextlib.ExitStack) -> list[str]:
    folder = Path(tempfile.gettempdir(), f"implicit-tuning-gpus-{getpass.getuser()}")
    folder.mkdir(exist_ok=True)
    while True:
        # All or none: two jobs that each hold half of what they need would wait for ever.
        with contextlib.ExitStack() as trial:
            claimed = []
            for gpu in gpus:
                with contextlib.suppress(Timeout):
                    trial.enter_context(FileLock(folder / f"{gpu}.lock", timeout=0))
                    claimed.append(gpu)
                if len(claimed) == count:
                    held.enter_context(trial.pop_all())
                    return claimed
        time.sleep(POLL_SECONDS)
