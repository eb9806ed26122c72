"""Jobs without a model never import torch or transformers, and __init__ files import nothing."""

import subprocess
import sys

import pytest

WITHOUT_MODEL = [
    "implicit_tuning.artifact",
    "implicit_tuning.chat",
    "implicit_tuning.config",
    "implicit_tuning.explain",
    "implicit_tuning.figures",
    "implicit_tuning.formatting",
    "implicit_tuning.judging.alpaca",
    "implicit_tuning.judging.oracle",
    "implicit_tuning.organism.corpus",
    "implicit_tuning.organism.oracle",
    "implicit_tuning.organism.rows",
    "implicit_tuning.plan",
    "implicit_tuning.preview",
    "implicit_tuning.publication",
    "implicit_tuning.sources",
    "implicit_tuning.statistics",
    "implicit_tuning.tables",
    "implicit_tuning.upkeep",
    "download",
    "figure",
    "format",
    "judge",
    "publish",
    "shuffle",
    "table",
]
IMPORT = "import importlib, sys; importlib.import_module(sys.argv[1]); print(*sys.modules)"


def imported_by(module, scripts):
    run = [sys.executable, "-c", IMPORT, module]
    environment = {"PYTHONPATH": str(scripts), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(run, capture_output=True, text=True, check=True, env=environment)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", WITHOUT_MODEL)
def test_torch_is_not_imported(module, repository):
    modules = imported_by(module, repository / "workflow/scripts")
    assert module in modules
    assert not {"torch", "transformers"} & modules


def test_judging_does_not_import_torch_when_alpaca_eval_is_loaded(repository):
    modules = imported_by("alpaca_eval", repository / "workflow/scripts")
    assert not {"torch", "transformers"} & modules


@pytest.mark.parametrize("package", ["", ".datasets", ".judging", ".organism"])
def test_packages_import_nothing_eagerly(package, repository):
    modules = imported_by(f"implicit_tuning{package}", repository / "workflow/scripts")
    ours = {name for name in modules if name.startswith("implicit_tuning")}
    assert ours == {"implicit_tuning", f"implicit_tuning{package}"}
