"""Jobs without a model never import torch or transformers, and __init__ files import nothing."""

import pytest

from implicit_tuning import judging
from implicit_tuning.nodes.code import PACKAGE, SCRIPTS, Code
from imported_modules import imported_by

WITHOUT_MODEL = [
    "implicit_tuning.nodes.artifact",
    "implicit_tuning.models.chat",
    "implicit_tuning.experiment.config",
    "implicit_tuning.commands.explain",
    "implicit_tuning.analysis.embeddings",
    "implicit_tuning.reporting.figures.main",
    "implicit_tuning.reporting.figures.similarity",
    "implicit_tuning.experiment.costs.cost_table",
    "implicit_tuning.generation.engines.kinds",
    "implicit_tuning.data.formatting",
    "implicit_tuning.nodes.gpus",
    "implicit_tuning.remote.hub",
    "implicit_tuning.judging.alpaca",
    "implicit_tuning.commands.judge",
    "implicit_tuning.judging.kinds",
    "implicit_tuning.judging.kinds",
    "implicit_tuning.judging.judges.openai",
    "implicit_tuning.judging.judges.oracle",
    "implicit_tuning.remote.lockfile",
    "implicit_tuning.commands.lock.command",
    "implicit_tuning.organism.corpus",
    "implicit_tuning.organism.oracle",
    "implicit_tuning.organism.rows",
    "implicit_tuning.experiment.planners.all_nodes",
    "implicit_tuning.experiment.preflight.checks",
    "implicit_tuning.commands.preview",
    "implicit_tuning.experiment.stable_names",
    "implicit_tuning.data.rephrasing",
    "implicit_tuning.reporting.page.build",
    "implicit_tuning.data.rewriters.kinds",
    "implicit_tuning.data.rewriters.openai",
    "implicit_tuning.analysis.similarity",
    "implicit_tuning.commands.single_run",
    "implicit_tuning.remote.fetching",
    "implicit_tuning.analysis.statistics",
    "implicit_tuning.reporting.tables.examples",
    "implicit_tuning.reporting.tables.main",
    "implicit_tuning.reporting.tables.ranking",
    "implicit_tuning.reporting.tables.similarity",
    "implicit_tuning.commands.upkeep",
    "download",
    "fetch",
    "figure",
    "format",
    "judge",
    "stable_names",
    "report",
    "select_epochs",
    "shuffle",
    "similarity",
    "table",
]


@pytest.mark.parametrize("module", WITHOUT_MODEL)
def test_torch_is_not_imported(module, repository):
    modules = imported_by(module, repository / "workflow/scripts")
    assert module in modules
    assert not {"torch", "transformers"} & modules


def test_judging_does_not_import_torch_when_alpaca_eval_is_loaded(repository):
    modules = imported_by("alpaca_eval", repository / "workflow/scripts")
    assert not {"torch", "transformers"} & modules


@pytest.mark.parametrize(
    "package",
    [
        "",
        ".costs",
        ".datasets",
        ".engines",
        ".figures",
        ".judging",
        ".organism",
        ".preflight",
        ".report",
        ".rewriting",
        ".tables",
    ],
)
def test_packages_import_nothing_eagerly(package, repository):
    modules = imported_by(f"implicit_tuning{package}", repository / "workflow/scripts")
    ours = {name for name in modules if name.startswith("implicit_tuning")}
    assert ours == {"implicit_tuning", f"implicit_tuning{package}"}


def test_the_door_of_the_judging_package_opens_when_asked():
    from implicit_tuning.judging.alpaca import Comparison, compare

    assert (judging.compare, judging.Comparison) == (compare, Comparison)
    with pytest.raises(AttributeError, match="no attribute 'comparee'"):
        judging.comparee  # noqa: B018


def test_no_key_depends_on_what_lies_behind_that_door():
    """Keys are read off import statements, which would end at the door."""
    files = [*SCRIPTS.glob("*.py"), *SCRIPTS.glob(f"{PACKAGE}/**/*.py")]
    names = {".".join(file.relative_to(SCRIPTS).with_suffix("").parts) for file in files}
    roots = {name for name in names if not name.endswith("__init__")}
    assert {"judge", "table", f"{PACKAGE}.judging.alpaca"} <= roots
    behind = {root for root in roots if f"{PACKAGE}.judging" in Code((root,)).modules}
    assert behind == set()
