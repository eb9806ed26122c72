"""The habits of the house: linters and formatters find nothing."""

import subprocess
import sys

import pytest
import yaml

PYTHON = ["workflow", "tests", "benchmarks", "docs/build_api.py"]
RULES = ["Snakefile", "rules", "benchmarks/plain.smk"]
PROSE = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "config", "containers", "docs"]

# By the id of the hook that runs it before a commit.
CHECKS = {
    "ruff-check": ["ruff", "check", *PYTHON],
    "ruff-format": ["ruff", "format", "--check", *PYTHON],
    "snakefmt": ["snakefmt", "--check", *RULES],
    "lint": ["snakemake", "--lint"],
    "codespell": ["codespell_lib", *PYTHON, *RULES, *PROSE],
}


@pytest.mark.parametrize("arguments", CHECKS.values(), ids=CHECKS)
def test_style(arguments, repository):
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_hooks_and_tests_check_the_same(repository):
    """Types are the business of test_types.py."""
    config = yaml.safe_load((repository / ".pre-commit-config.yaml").read_text())
    hooks = {hook["id"]: hook["entry"] for repo in config["repos"] for hook in repo["hooks"]}
    assert set(hooks) - {"mypy"} == set(CHECKS)
    for hook, (program, *_) in CHECKS.items():
        assert hooks[hook].split()[0] == f".venv/bin/{program.removesuffix('_lib')}"


def test_no_two_files_of_tests_have_one_name(repository):
    """pytest imports them by their bare names, and then collects one of them alone."""
    names = [file.name for file in repository.glob("tests/*/test_*.py")]
    assert sorted(names) == sorted(set(names))
