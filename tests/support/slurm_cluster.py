"""SLURM with one node on loopback: its own munged, slurmctld and slurmd, started as root."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

Answer = TypeVar("Answer")

# The executor plugin drops SLURM_CONF in its jobs, so only the default place will do.
PLACE = Path("/etc/slurm")
MARK = "# Written by tests/support/slurm_cluster.py for the time of a test."
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")

# Short MessageTimeout, so that commands give up soon while slurmctld is away.
CONFIGURATION = {
    "slurm.conf": """{mark}
ClusterName=loopback
SlurmctldHost=localhost
SlurmUser=root
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=86400
MessageTimeout=2
KillWait=2
SchedulerParameters=sched_interval=1,sched_min_interval=0
GresTypes=gpu
NodeName=localhost CPUs=4 RealMemory=1000000 Gres=gpu:3
PartitionName=cpu Nodes=localhost Default=YES
PartitionName=gpu Nodes=localhost
""",
    # Any character devices pass for GPUs.
    "gres.conf": """{mark}
NodeName=localhost Name=gpu File=/dev/null
NodeName=localhost Name=gpu File=/dev/zero
NodeName=localhost Name=gpu File=/dev/full
""",
}


@dataclass(frozen=True)
class SlurmJob:
    """What slurmctld says of a job, by the names of `scontrol show job`."""

    fields: dict[str, str]

    @property
    def number(self) -> str:
        return self.fields["JobId"]

    @property
    def state(self) -> str:
        return self.fields["JobState"]

    @property
    def name(self) -> str:
        """Rule and wildcards, as the executor plugin writes them into the comment."""
        return self.fields["Comment"]

    @property
    def minutes(self) -> int:
        """Wall time that it may take."""
        days, hours, minutes = re.fullmatch(
            r"(?:(\d+)-)?(\d+):(\d+):\d+", self.fields["TimeLimit"]
        ).groups()
        return (int(days or 0) * 24 + int(hours)) * 60 + int(minutes)


def reason_to_skip() -> str | None:
    """Why SLURM cannot be started here, or None."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if os.geteuid() != 0:
        return "SLURM tests need root, to start slurmctld and slurmd"
    if missing:
        return f"SLURM tests need {', '.join(missing)}: apt-get install slurm-wlm munge"
    for name in CONFIGURATION:
        file = PLACE / name
        if file.exists() and MARK not in file.read_text(encoding="utf-8"):
            return f"{file} exists: tests leave a configured SLURM alone"
    running = {process.info["name"] for process in psutil.process_iter(["name"])}
    if running & {"slurmctld", "slurmd"}:
        return "slurmctld or slurmd runs already: tests leave it alone"
    return None


class SlurmCluster:
    """Daemons and configuration of the cluster."""

    def __init__(self, folder: Path) -> None:
        """Args: folder: empty, open to everybody (munged asks for that); gets state and logs."""
        self._folder = folder
        self._daemons: dict[str, subprocess.Popen] = {}

    def start(self) -> None:
        """Write the configuration and start all daemons."""
        for name, text in CONFIGURATION.items():
            filled = text.format(mark=MARK, folder=self._folder)
            (PLACE / name).write_text(filled, encoding="utf-8")
        for name in ("state", "spool"):
            (self._folder / name).mkdir()
        self._start_munged()
        self.start_controller()
        self._start("slurmd", "-D", "-N", "localhost")
        wait_until(lambda: "idle" in _output("sinfo", "--noheader", "--format=%T"), "the node")

    def close(self) -> None:
        """End all jobs and daemons, and remove the configuration."""
        if "slurmd" in self._daemons:
            _output("scancel", "--user=root")
            wait_until(lambda: not _output("squeue", "--noheader"), "the end of all jobs")
        for name in reversed(self._daemons):
            self._stop(name)
        for name in CONFIGURATION:
            (PLACE / name).unlink()

    def start_controller(self) -> None:
        """Start slurmctld, with the jobs it knew before."""
        self._start("slurmctld", "-D")
        wait_until(lambda: "is UP" in _output("scontrol", "ping"), "slurmctld")

    def stop_controller(self) -> None:
        """Stop slurmctld; its jobs go on."""
        self._stop("slurmctld")

    def jobs(self, name: str = "") -> list[SlurmJob]:
        """All jobs, ended ones too, oldest first, whose name has this part."""
        lines = _output("scontrol", "--oneliner", "show", "job").splitlines()
        fields = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines]
        jobs = [SlurmJob(f) for f in fields if "JobId" in f and name in f.get("Comment", "")]
        return sorted(jobs, key=lambda job: int(job.number))

    def job(self, number: str) -> SlurmJob:
        """The job with this number."""
        [job] = [job for job in self.jobs() if job.number == number]
        return job

    def _start_munged(self) -> None:
        key = self._folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        places = {"key": "munge.key", "seed": "munge.seed", "log": "munged.log"}
        files = [f"--{name}-file={self._folder / file}" for name, file in places.items()]
        socket = self._folder / "munge.socket"
        pid = self._folder / "munged.pid"
        self._start("munged", "--foreground", *files, f"--socket={socket}", f"--pid-file={pid}")
        wait_until(socket.exists, "munged")

    def _start(self, name: str, *arguments: str) -> None:
        with (self._folder / f"{name}.out").open("ab") as printed:
            self._daemons[name] = subprocess.Popen(
                [name, *arguments], stdout=printed, stderr=subprocess.STDOUT
            )

    def _stop(self, name: str) -> None:
        self._daemons[name].terminate()
        self._daemons[name].wait(timeout=30)


def change_job(job: SlurmJob, change: str) -> None:
    """Change a job as an administrator does, e.g. "EndTime=now"."""
    subprocess.run(["scontrol", "update", f"JobId={job.number}", change], check=True)


def cancel_job(job: SlurmJob) -> None:
    """Cancel a job from outside of Snakemake."""
    subprocess.run(["scancel", job.number], check=True)


def wait_until(answer: Callable[[], Answer], what: str, seconds: float = 240) -> Answer:
    """The first true answer.

    Raises:
        TimeoutError: there was none in time.
    """
    end = time.monotonic() + seconds
    while not (found := answer()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(0.3)
    return found


def _output(*command: str) -> str:
    """What a command printed; nothing while slurmctld is away."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
