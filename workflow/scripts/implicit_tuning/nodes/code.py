"""The code that decides a result, as one hash that survives a move of any module."""

import ast
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import MappingProxyType
from typing import Any

from implicit_tuning.exports import HOMES

PACKAGE = "implicit_tuning"
SCRIPTS = Path(__file__).resolve().parents[2]
# This package, in no key: `ARTIFACT_FORMAT` stands for it.
MACHINERY = f"{PACKAGE}.nodes"
KEY_LENGTH = 20
IMPORTS = (ast.Import, ast.ImportFrom)
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
# Where a statement holds further statements.
BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


def canonical_json(value: object) -> str:
    """One spelling for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def short_hash(value: object) -> str:
    """The first 20 hexadecimal digits (80 bits) of the sha256 of a JSON value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:KEY_LENGTH]


@dataclass(frozen=True)
class Code:
    """The code that decides a result.

    Attributes:
        roots: a script ("scripts/finetune.py" as "finetune") or modules ("implicit_tuning.models.chat").
        libraries: distribution names whose installed versions decide the result.
    """

    roots: tuple[str, ...]
    libraries: tuple[str, ...] = ()

    @cached_property
    def modules(self) -> dict[str, str]:
        """Digest of each project module that the roots import, transitively, by name.

        A digest covers the module's own statements alone, so that `explain` can name the module
        that changed and not those that import it.
        """
        names = sorted(set().union(*map(_in_order_of_import, self.roots)))
        return {name: _syntax_digest(_read_module(name), lambda imported: "") for name in names}

    @cached_property
    def versions(self) -> dict[str, str]:
        """Installed version of each library.

        Raises:
            ModuleNotFoundError: names the distribution that is not installed.
        """
        return {name: _installed_version(name) for name in self.libraries}

    @cached_property
    def fingerprint(self) -> str:
        """One hash over the roots, all that they import, and the versions of libraries.

        It is a Merkle hash without module names: renaming or moving a module changes no
        fingerprint, and editing one changes exactly those of the code that imports it.

        Raises:
            ModuleNotFoundError: names a root or a library that does not exist.
            ImportError: modules import one another in a circle.
        """
        return short_hash([sorted(map(module_digest, self.roots)), self.versions])


@cache
def _installed_version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise ModuleNotFoundError(
            f"{distribution} is not installed, but decides results: run 'pip install -e .'"
        ) from None


@dataclass(frozen=True)
class _Import:
    """One name that a file imports from the project.

    Attributes:
        scope: the functions and classes around the import statement; empty at module level.
        module: the project module that provides the name.
        name: what is imported from that module; None for the module itself.
        bound: the name by which the file calls it.
    """

    scope: tuple[str, ...]
    module: str
    name: str | None
    bound: str


@dataclass(frozen=True)
class _Source:
    """A parsed Python file and what it imports from the project."""

    tree: ast.Module
    imports: tuple[_Import, ...]


def module_digest(root: str) -> str:
    """Digest of a module's statements and of all project modules that it imports, without names.

    Raises:
        ModuleNotFoundError: there is no such module.
        ImportError: modules import one another in a circle.
    """
    for name in _in_order_of_import(root):
        _digest_with_imports(name)  # kept, so that no import is followed twice
    return _digest_with_imports(root)


def file_digest(path: Path) -> str:
    """`module_digest` of a Python file outside the package, such as one of a user's own."""
    return _syntax_digest(_read_file(path), module_digest)


@cache
def _digest_with_imports(name: str) -> str:
    if _is_machinery(name):
        return "machinery"
    return _syntax_digest(_read_module(name), _digest_with_imports)


@cache
def _in_order_of_import(root: str) -> tuple[str, ...]:
    """A module and all that it imports from the project, each behind its own imports."""
    graph: dict[str, list[str]] = {}
    waiting = [root]
    while waiting:
        name = waiting.pop()
        if name not in graph and not _is_machinery(name):
            imported = {found.module for found in _read_module(name).imports}
            graph[name] = sorted(module for module in imported if not _is_machinery(module))
            waiting.extend(graph[name])
    try:
        return tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise ImportError(f"modules import one another in a circle: {circle}") from None


def _is_machinery(name: str) -> bool:
    return name == MACHINERY or name.startswith(f"{MACHINERY}.")


@cache
def _read_module(name: str) -> _Source:
    path = module_path(name)
    if path is None:
        raise ModuleNotFoundError(f"no project module or script '{name}' below {SCRIPTS}")
    return _read_file(path, name)


def _read_file(path: Path, name: str = "") -> _Source:
    """Parse a file; `name` is that of a project module, from which its relative imports start."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    return _Source(tree, tuple(_project_imports(tree.body, package)))


def module_path(name: str) -> Path | None:
    """File of a project module ("implicit_tuning.models.chat") or of a script ("finetune")."""
    stem = SCRIPTS.joinpath(*name.split("."))
    for candidate in (stem.with_suffix(".py"), stem / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _project_imports(
    statements: Iterable[ast.AST], package: list[str], scope: tuple[str, ...] = ()
) -> Iterator[_Import]:
    """What statements import from the project, also inside functions."""
    for statement in statements:
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                if module := _providing_module(alias.name):
                    yield _Import(scope, module, None, alias.asname or alias.name)
        elif isinstance(statement, ast.ImportFrom):
            origin = _origin(statement, package)
            for alias in statement.names:
                if module := _providing_module(f"{origin}.{alias.name}"):
                    name = None if module == f"{origin}.{alias.name}" else alias.name
                    yield _Import(scope, module, name, alias.asname or alias.name)
        else:
            inside = (*scope, statement.name) if isinstance(statement, SCOPES) else scope
            for block in BLOCKS:
                yield from _project_imports(getattr(statement, block, ()), package, inside)


def _origin(node: ast.ImportFrom, package: list[str]) -> str:
    above = package[: len(package) - node.level + 1] if node.level else []
    return ".".join([*above, *([node.module] if node.module else [])])


def _providing_module(name: str) -> str | None:
    """The project module that provides a dotted name: itself, or the one it is an attribute of."""
    if name.split(".")[0] != PACKAGE:
        return None
    if module_path(name):
        return name
    if home := HOMES.get(name.removeprefix(f"{PACKAGE}.")):
        return f"{PACKAGE}.{home}"  # a name of the library, behind the door of the package
    parent = name.rpartition(".")[0]
    return parent if parent and module_path(parent) else None


def _syntax_digest(source: _Source, digest_of: Callable[[str], str]) -> str:
    """Digest of a file's syntax in which `digest_of` stands for each imported project module.

    Import statements of the project are taken out and listed apart, by digest, so that neither the
    name of a module nor its place in the alphabet counts.
    """
    modules = {i.bound: digest_of(i.module) for i in source.imports if i.name is None}
    imported = [[*i.scope, digest_of(i.module), i.name, i.name and i.bound] for i in source.imports]
    return short_hash([_syntax(source.tree, modules), sorted(map(canonical_json, imported))])


def _syntax(node: object, modules: Mapping[str, str] = MappingProxyType({})) -> object:
    """Syntax tree as JSON: node types and non-empty fields, without docstrings and imports of ours.

    ast.dump and ast.unparse print the same code differently in Python 3.11, 3.12 and 3.13, so a
    new interpreter would make every node stale.

    Args:
        modules: digest of each project module that the file calls by a name, by that name.
    """
    if isinstance(node, ast.AST):
        if isinstance(node, ast.Name) and node.id in modules:
            return ["module", modules[node.id]]
        fields = {
            name: _syntax(_without_docstring(node, value) if name == "body" else value, modules)
            for name, value in ast.iter_fields(node)
            if value is not None and value != []
        }
        return [type(node).__name__, fields]
    if isinstance(node, list):
        kept = (n for n in node if not (isinstance(n, IMPORTS) and _of_project(n)))
        return [_syntax(item, modules) for item in kept]
    return [type(node).__name__, repr(node)]


def _of_project(statement: ast.Import | ast.ImportFrom) -> bool:
    if isinstance(statement, ast.Import):
        return all(alias.name.split(".")[0] == PACKAGE for alias in statement.names)
    return statement.level > 0 or (statement.module or "").split(".")[0] == PACKAGE


def _without_docstring(node: ast.AST, body: Any) -> Any:
    if isinstance(node, (ast.Module, *SCOPES)) and ast.get_docstring(node, clean=False) is not None:
        return body[1:]
    return body
