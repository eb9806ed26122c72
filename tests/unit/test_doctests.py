"""The examples in docstrings and in docs/library.md run, and print what they say."""

import doctest
import importlib
import subprocess
import sys

import pytest

import implicit_tuning
from implicit_tuning.nodes.code import PACKAGE, SCRIPTS

FILES = sorted(f for f in SCRIPTS.glob(f"{PACKAGE}/**/*.py") if ">>> " in f.read_text("utf-8"))
MODULES = [".".join(file.relative_to(SCRIPTS).with_suffix("").parts) for file in FILES]


@pytest.fixture(autouse=True)
def at_the_root(repository, monkeypatch):
    """The examples load the bases that are shipped with the repository."""
    monkeypatch.chdir(repository)


def test_there_are_examples():
    shown = {"analysis.api", "models.api", "nodes.api", "judging.api", "models.rule_adapter"}
    assert {f"{PACKAGE}.{name}" for name in shown} <= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_docstrings_run(module):
    failed, tried = doctest.testmod(importlib.import_module(module))
    assert tried > 0
    assert failed == 0


def test_the_guide_runs(repository):
    # In it an empty line stands before each fence, which is else taken for a part of the output.
    failed, tried = doctest.testfile(str(repository / "docs/library.md"), module_relative=False)
    assert tried > 10
    assert failed == 0


def test_the_reference_has_every_name_with_its_text(repository, tmp_path):
    build = "import sys; sys.path.insert(0, 'docs'); from build_api import *; build_api(Path(sys.argv[1]))"
    run = [sys.executable, "-c", build, str(tmp_path)]
    done = subprocess.run(run, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "implicit_tuning.html").read_text(encoding="utf-8")
    for name in implicit_tuning.__all__:
        assert f'id="{name}"' in page
    assert "Rank candidate responses to an instruction" in page
    assert "Warn" not in done.stderr
