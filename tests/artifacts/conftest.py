"""The default experiment, built in the checkout itself as a user builds it."""

import subprocess
import sys

import pytest


@pytest.fixture(scope="session")
def organism(repository):
    """Folder of the finished default experiment."""
    command = [sys.executable, "-m", "snakemake", "--cores", "all", "--nocolor"]
    done = subprocess.run(
        command,
        cwd=repository,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    return repository / "results/organism"
