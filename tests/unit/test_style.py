"""The habits of the house: linters and formatters find nothing."""

import subprocess
import sys

import pytest

PYTHON = ["workflow", "tests", "benchmarks"]
RULES = ["Snakefile", "rules", "benchmarks/plain.smk"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["ruff", "check", *PYTHON],
        ["ruff", "format", "--check", *PYTHON],
        ["snakefmt", "--check", *RULES],
        ["snakemake", "--lint"],
    ],
    ids=["ruff check", "ruff format", "snakefmt", "snakemake --lint"],
)
def test_style(arguments, repository):
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
