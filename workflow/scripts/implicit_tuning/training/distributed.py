"""Fine-tuning in several processes on one machine, started by a launcher and watched by one parent.

The parent owns the artifact: it writes what is to be done to a file, starts the launcher
(`accelerate launch` on GPUs, `torchrun` on CPUs, where the former would start one process without a
word), and takes the report that the first process leaves. If one process dies, all end. If the
parent dies, however it does, so do they.
"""

import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import gather_object
from torch.distributed.elastic.multiprocessing.errors import record

from implicit_tuning.models.chat import ChatFormat
from implicit_tuning.nodes.files import write_atomically
from implicit_tuning.training.run import TrainingReport, finetune
from implicit_tuning.training.settings import TrainingSettings, require_usable

logger = logging.getLogger(__name__)

SCRIPTS = Path(__file__).resolve().parents[2]
LAUNCHERS = SCRIPTS.parents[1] / "config/accelerate"
LAUNCHER_FILES = {"none": "ddp.yaml", "fsdp": "fsdp.yaml", "zero3": "zero3.yaml"}
ROOT_CAUSE = "Root Cause (first observed failure):"  # in what torchrun prints at the end
LINES_KEPT = 200  # of the output, to say why it ended
SECONDS_TO_END = 60  # the launcher gives its processes 30


class ProcessFailed(RuntimeError):
    """One of the processes failed, or was killed; the others were ended."""


def finetune_in_processes(
    base: Path,
    rows: Path,
    destination: Path,
    partial: Path,
    seed: int,
    chat_format: ChatFormat,
    settings: TrainingSettings,
    save_every: int,
) -> TrainingReport:
    """`run.finetune` in `settings.world_size` processes.

    Raises:
        ValueError: a setting is unusable; nothing was started.
        ProcessFailed: names the process and its last lines. What it had saved in `partial` stays.
    """
    require_usable(settings)
    job = {
        "base": str(Path(base).resolve()),
        "rows": str(Path(rows).resolve()),
        "destination": str(Path(destination).resolve()),
        "partial": str(Path(partial).resolve()),
        "seed": seed,
        "chat_format": asdict(chat_format),
        "settings": asdict(settings),
        "save_every": save_every,
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "job.json"
        file.write_text(json.dumps(job), encoding="utf-8")
        try:
            run_processes(launch_command(settings, file), settings.world_size)
        except ProcessFailed as error:
            # The report is the last that is done: what went wrong on the way out takes nothing back.
            if not _report_file(file).exists():
                raise
            logger.warning("after the run was done: %s", error)
        return read_report(file, settings.world_size)


def launch_command(settings: TrainingSettings, job: Path) -> list[str]:
    """The command that starts `main` in each process of the world."""
    program = ["-m", "implicit_tuning.training.distributed", str(job)]
    count = str(settings.world_size)
    if settings.device == "cpu":
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        return [*launcher, "--nproc-per-node", count, *program]
    file = LAUNCHERS / LAUNCHER_FILES[settings.sharding]
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(file)]
    if settings.sharding == "zero3":
        launcher += ["--deepspeed_config_file", str(file.with_suffix(".json"))]
    # Port 0 is any free one: two runs may share a machine.
    return [*launcher, "--num_processes", count, "--main_process_port", "0", *program]


def run_processes(command: list[str], count: int) -> None:
    """Run a launcher to its end; all that it prints goes to standard error.

    Raises:
        ProcessFailed: the launcher did.
    """
    path = os.pathsep.join(filter(None, [str(SCRIPTS), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # nothing is written: who reads from it sees when this one ends
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONPATH": path},
    )
    printed: deque[str] = deque(maxlen=LINES_KEPT)
    with _ended_with_this_one(process):
        for line in process.stdout or ():
            sys.stderr.write(line)
            printed.append(line)
        failed = process.wait() != 0
    if failed:
        raise ProcessFailed(_why("".join(printed), count))


def read_report(job: Path, count: int) -> TrainingReport:
    """The report that the first process left beside the job.

    Raises:
        ProcessFailed: it does not stand for `count` processes.
    """
    try:
        report = json.loads(_report_file(job).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProcessFailed("the processes ended without a report") from None
    ranks, pids = zip(*((one["rank"], one["pid"]) for one in report["processes"]), strict=True)
    if sorted(ranks) != list(range(count)) or len(set(pids)) != count:
        raise ProcessFailed(
            f"world_size is {count}, but these processes ran: {report['processes']}"
        )
    values = report["training"]
    return TrainingReport(**{**values, "without_loss": tuple(values["without_loss"])})


@record
def main(file: Path) -> None:
    """One process: fine-tune with the others, and report."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job = json.loads(file.read_text(encoding="utf-8"))
    report = finetune(
        base=Path(job["base"]),
        rows=Path(job["rows"]),
        destination=Path(job["destination"]),
        partial=Path(job["partial"]),
        seed=job["seed"],
        chat_format=ChatFormat(**job["chat_format"]),
        settings=TrainingSettings.from_json(job["settings"]),
        save_every=job["save_every"],
    )
    state = PartialState()
    processes = gather_object([{"rank": state.process_index, "pid": os.getpid()}])
    if state.is_main_process:
        values = {"training": asdict(report), "processes": processes}
        write_atomically(_report_file(file), json.dumps(values))
    state.wait_for_everyone()
    state.destroy_process_group()


@contextlib.contextmanager
def _ended_with_this_one(process: subprocess.Popen) -> Iterator[None]:
    """End the launcher, and it its processes, when the block is left before they are done."""
    # By default SIGTERM would end this process at once, and leave them.
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                process.kill()


def _end_with_parent() -> None:
    """End this process when the parent's end of the pipe is closed, also by SIGKILL."""
    os.read(0, 1)
    os._exit(1)


def _why(printed: str, count: int) -> str:
    """One line on the process that failed first, from the last lines of a launcher."""
    _, found, cause = printed.rpartition(ROOT_CAUSE)
    lines = [line.strip() for line in cause.splitlines() if line.strip(" =")]
    last = " | ".join(lines[-3:])
    rank = re.search(r"rank\s*: (\d+)", cause)
    if not found or rank is None:
        return f"the launcher of {count} processes failed: {last}"
    return f"process {rank[1]} of {count} failed and all were ended: {last}"


def _report_file(job: Path) -> Path:
    return job.with_name("report.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
