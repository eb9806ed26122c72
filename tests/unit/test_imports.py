"""The order of the twelve packages, what may load torch, and what is in no key."""

import ast
import subprocess
import sys

import pytest

from implicit_tuning.nodes.code import MACHINERY, PACKAGE, SCRIPTS, Code
from imported_modules import imported_by

# Each package imports only those before it.
PACKAGES = (
    "organism", "nodes", "remote", "models", "data", "training", "analysis", "generation",
    "judging", "reporting", "experiment", "commands",
)  # fmt: skip
ROOT = {"__init__", "__main__", "exports"}
FILES = {
    ".".join(file.relative_to(SCRIPTS).with_suffix("").parts): file
    for file in SCRIPTS.rglob("*.py")
}
MODULES = {name: file for name, file in FILES.items() if file.name != "__init__.py"}
# Modules that load torch or transformers when they are imported, and the scripts whose jobs need them.
WITH_MODEL = {
    "finetune", "generate", "merge", "pretrain", "rank",
    *(f"{PACKAGE}.{name}" for name in (
        "analysis.api", "analysis.ranking", "commands.chat.conversation",
        "generation.engines.rule_rows", "generation.engines.transformers_engine",
        "generation.engines.vllm_engine", "generation.engines.vllm_rules", "generation.generate",
        "generation.guards.grammar", "generation.guards.template",
        "judging.judges.hf_logits", "judging.judges.mean_logprob",
        "models.folder", "models.likelihood", "models.merging", "models.rule_adapter",
        "organism.competence", "organism.pretraining", "organism.tokenizer",
    )),
    *(name for name in MODULES if name.startswith(f"{PACKAGE}.training.")),
}  # fmt: skip
# Light, and beside the heavy ones that use them.
WITH_MODEL -= {f"{PACKAGE}.training.{name}" for name in ("updates", "weighting")}
IMPORT = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    assert not {"torch", "transformers"} & set(sys.modules), name
"""


def imports_of(name):
    """Project modules that a module imports anywhere, also in functions and for type checkers."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom | ast.Import)]
    assert not any(node.level for node in nodes if isinstance(node, ast.ImportFrom)), name
    origins = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    origins |= {
        alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
    }
    # The public names are for people who use the library.
    assert PACKAGE not in origins - {None} or name.endswith("nodes.code"), name
    return {origin for origin in origins if origin and origin.startswith(f"{PACKAGE}.")}


def package_of(name):
    return name.split(".")[1]


def test_the_packages_are_these_and_little_else_is_beside_them():
    beside = {file.stem for file in (SCRIPTS / PACKAGE).glob("*.py")}
    folders = {file.parent.name for file in (SCRIPTS / PACKAGE).glob("*/__init__.py")}
    assert (beside, folders) == (ROOT, set(PACKAGES))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_those_before_it(package):
    allowed = {"exports", *PACKAGES[: PACKAGES.index(package) + 1]}
    modules = [name for name in MODULES if name.startswith(f"{PACKAGE}.{package}.")]
    upward = {
        name: {i for i in imports_of(name) if package_of(i) not in allowed} for name in modules
    }
    assert {name: found for name, found in upward.items() if found} == {}


def test_no_modules_import_one_another_in_a_circle():
    for name in MODULES:
        assert Code((name,)).fingerprint


def test_only_the_package_itself_has_anything_in_its_init():
    written = {name for name, file in FILES.items() if name not in MODULES and file.stat().st_size}
    assert written == {f"{PACKAGE}.__init__"}


def test_what_is_there_for_users_of_the_library_is_in_no_key():
    doors = {name for name in MODULES if name.endswith(".api")}
    assert doors == {f"{PACKAGE}.{p}.api" for p in ("analysis", "judging", "models", "nodes")}
    scripts = [name for name in MODULES if "." not in name]
    plugins = [n for n in MODULES if ".judges." in n or ".formatters." in n or ".tables." in n]
    for name in (*scripts, *plugins, f"{PACKAGE}.judging.alpaca", f"{PACKAGE}.data.formatting"):
        keyed = set(Code((name,)).modules)
        assert not keyed & {*doors, PACKAGE}, name
        assert not any(module.startswith(MACHINERY) for module in keyed), name


@pytest.mark.parametrize("package", [*PACKAGES, "scripts"])
def test_modules_without_a_model_do_not_load_torch(package, repository):
    prefix = "" if package == "scripts" else f"{PACKAGE}.{package}."
    names = [n for n in MODULES if (n.startswith(prefix) if prefix else "." not in n)]
    light = sorted(set(names) - WITH_MODEL - {f"{PACKAGE}.generation.engines.vllm_worker"})
    run = [sys.executable, "-c", IMPORT, *light]
    environment = {"PYTHONPATH": str(repository / "workflow/scripts"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(run, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


def test_judging_does_not_import_torch_when_alpaca_eval_is_loaded(repository):
    modules = imported_by("alpaca_eval", repository / "workflow/scripts")
    assert not {"torch", "transformers"} & modules


def test_the_package_imports_nothing_eagerly(repository):
    modules = imported_by(PACKAGE, repository / "workflow/scripts")
    assert {name for name in modules if name.startswith(PACKAGE)} == {PACKAGE, f"{PACKAGE}.exports"}
