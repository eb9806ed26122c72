"""The real Snakefile on the smallest config, run in folders of their own."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

STARTED = re.compile(r"^(?:local)?(?:rule|checkpoint) (\w+):$", re.MULTILINE)
# Targets and touch files, which do no work.
BOOKKEEPING = {"all", "judged"}


@dataclass(frozen=True)
class Run:
    """What a call of Snakemake did: exit status, jobs started by rule, and all it printed."""

    status: int
    jobs: Counter
    output: str


class Checkout:
    """A copy of the repository in which tests may edit code, config and results."""

    def __init__(self, repository: Path, folder: Path) -> None:
        self.folder = folder
        ignored = shutil.ignore_patterns(".venv", ".git", ".snakemake", "__pycache__", "nodes")
        for name in ("Snakefile", "rules", "workflow", "config", "profiles", "environment.yml"):
            origin = repository / name
            if origin.is_dir():
                shutil.copytree(origin, folder / name, ignore=ignored)
            else:
                shutil.copy(origin, folder / name)
        (folder / "resources").symlink_to(repository / "resources")
        self.config = yaml.safe_load((repository / "tests/fixtures/smallest.yaml").read_text())

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def run(self, *arguments: str) -> Run:
        """Write the config, run Snakemake, and read from its output what it started."""
        config = self.write_config()
        command = [sys.executable, "-m", "snakemake", "--cores", "2", "--nocolor"]
        done = subprocess.run(
            [*command, "--configfile", str(config), *arguments],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        jobs = Counter(rule for rule in STARTED.findall(done.stdout) if rule not in BOOKKEEPING)
        return Run(done.returncode, jobs, done.stdout)

    def write_config(self) -> Path:
        """Write the config as it is now."""
        config = self.folder / "smallest.yaml"
        config.write_text(yaml.safe_dump(self.config, sort_keys=False))
        return config

    def tool(self, *arguments: str) -> subprocess.CompletedProcess:
        """Run one of the commands beside the workflow."""
        command = [sys.executable, "-m", "implicit_tuning", *arguments]
        return subprocess.run(
            [*command, "--configfile", str(self.write_config())],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder / "workflow/scripts")},
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
