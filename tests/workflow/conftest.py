"""The real Snakefile on the smallest config, run in folders of their own."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

STARTED = re.compile(r"^(?:local)?(?:rule|checkpoint) (\w+):$", re.MULTILINE)
# Targets and touch files, which do no work.
BOOKKEEPING = {"all", "measured"}


@dataclass(frozen=True)
class Run:
    """What a call of Snakemake did: exit status, jobs started by rule, and all it printed."""

    status: int
    jobs: Counter
    output: str


def started_jobs(output: str) -> Counter:
    """Jobs by rule that Snakemake says it started."""
    return Counter(rule for rule in STARTED.findall(output) if rule not in BOOKKEEPING)


class Running:
    """A call of Snakemake that has not ended yet."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        # A file, not a pipe: jobs that outlive a killed Snakemake keep writing.
        self.printed = folder / f"printed.{time.monotonic_ns()}.log"
        with self.printed.open("w") as file:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT
            )

    def job(self, rule: str) -> psutil.Process:
        """The first process that runs the script of a rule; waits for it."""
        while self.process.poll() is None:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                if _runs_script(child, rule):
                    return child
            time.sleep(0.02)
        raise AssertionError(f"no job of rule {rule} was started:\n{self.finish().output}")

    def finish(self) -> Run:
        """Wait for its end, and read from what it printed which jobs it started."""
        status = self.process.wait()
        output = self.printed.read_text()
        return Run(status, started_jobs(output), output)


def _runs_script(process: psutil.Process, rule: str) -> bool:
    try:
        interpreter, *arguments = process.cmdline() or [""]
    except psutil.NoSuchProcess:
        return False
    scripts = [a for a in arguments if "/.snakemake/scripts/" in a and a.endswith(f".{rule}.py")]
    return "python" in Path(interpreter).name and bool(scripts)


class Checkout:
    """A copy of the repository in which tests may edit code, config, results and environment."""

    def __init__(self, repository: Path, folder: Path) -> None:
        self.repository = repository
        self.environment: dict[str, str] = {}
        self.check_out(folder)
        self.config = yaml.safe_load((repository / "tests/fixtures/smallest.yaml").read_text())

    def check_out(self, folder: Path) -> None:
        """Copy the code into a folder, with present time stamps, and go on there."""
        folder.mkdir(exist_ok=True)
        ignored = shutil.ignore_patterns(".venv", ".git", ".snakemake", "__pycache__")
        for name in ("Snakefile", "rules", "workflow", "config", "profiles", "environment.yml"):
            origin = self.repository / name
            if origin.is_dir():
                shutil.copytree(
                    origin, folder / name, ignore=ignored, copy_function=shutil.copyfile
                )
            else:
                shutil.copyfile(origin, folder / name)
        (folder / "resources").symlink_to(self.repository / "resources")
        self.folder = folder

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def run(self, *arguments: str) -> Run:
        """Write the config, run Snakemake, and read from its output what it started."""
        return self.start(*arguments).finish()

    def start(self, *arguments: str) -> Running:
        """Write the config and start Snakemake."""
        command = [sys.executable, "-m", "snakemake", "--cores", "2", "--nocolor"]
        command += ["--configfile", str(self.write_config()), *arguments]
        return Running(command, self.folder, {**os.environ, **self.environment})

    def repair(self) -> Run:
        """Run the repair, and read which jobs it started."""
        done = self.tool("repair")
        output = done.stdout + done.stderr
        return Run(done.returncode, started_jobs(output), output)

    def write_config(self) -> Path:
        """Write the config as it is now."""
        config = self.folder / "smallest.yaml"
        config.write_text(yaml.safe_dump(self.config, sort_keys=False))
        return config

    def tool(self, *arguments: str) -> subprocess.CompletedProcess:
        """Run one of the commands beside the workflow."""
        command = [sys.executable, "-m", "implicit_tuning", *arguments]
        environment = {**os.environ, **self.environment}
        search = [str(self.folder / "workflow/scripts"), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, search))
        return subprocess.run(
            [*command, "--configfile", str(self.write_config())],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="session")
def new_checkout(repository, tmp_path_factory):
    """Function that returns a checkout of its own, in which nothing was built."""
    return lambda: Checkout(repository, tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="session")
def finished(repository, tmp_path_factory) -> Checkout:
    """A checkout in which the smallest experiment has run to its end."""
    checkout = Checkout(repository, tmp_path_factory.mktemp("checkout"))
    run = checkout.run()
    assert run.status == 0, run.output
    return checkout
