"""The annotations of the package and of the scripts hold: mypy finds nothing."""

import subprocess
import sys

import pytest


@pytest.mark.long
def test_types(repository):
    run = [sys.executable, "-m", "mypy"]
    done = subprocess.run(run, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
