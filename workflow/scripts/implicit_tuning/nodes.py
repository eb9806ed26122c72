"""Identity of a node: what its result depends on, hashed into a key that stands in its path.

A node is one unit of work (one finetune, one comparison, ...). Its key is the hash of its stage,
the code that does the work, its own slice of the config and the identity of what it reads.
Another setting is therefore another path, and what is equal is shared.
"""

import ast
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import MappingProxyType
from typing import Any

from implicit_tuning import HOMES
from implicit_tuning.digests import read_sealed

# Raised by hand when the layout of artifacts changes: the machinery below is in no fingerprint.
ARTIFACT_FORMAT = 4
PACKAGE = "implicit_tuning"
SCRIPTS = Path(__file__).resolve().parents[1]
MACHINERY = frozenset(f"{PACKAGE}.{name}" for name in ("nodes", "artifact", "digests", "gpus"))
KEY_LENGTH = 20
IMPORTS = (ast.Import, ast.ImportFrom)
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
# Where a statement holds further statements.
BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")

# The wildcards of each stage's path: results/nodes/<stage>/<one folder a level>/<key>/
LEVELS: Mapping[str, tuple[str, ...]] = {
    "download": ("dataset",),
    "fetch": ("repository",),
    "format": ("dataset", "variant"),
    "pretrain": ("base",),
    "merge": ("base", "adaptation"),
    "finetune": ("base", "adaptation", "seed"),
    "generate": ("base", "adaptation", "seed", "evaluation"),
    "judge": ("base", "adaptation", "seed", "evaluation", "reference_seed", "judge"),
    "select": ("base", "adaptation"),
    "rank": ("base", "adaptation", "seed", "dataset"),
    "similarity": ("base", "adaptation", "seed", "evaluation", "embedding"),
    "table": ("table",),
    "figure": ("figure",),
    "report": (),
    "audit": ("base", "adaptation", "seed"),
}
# Stages whose readers depend on the bytes that came out, not on how they were made.
CUT_OFF = frozenset({"format", "select"})
# Stages whose weights may be given up once every node that loads them is built. One of two marks
# stands beside the manifest: a node that loads weights asks for the first, and so has them made
# again; who gives them up asks for the second.
RELEASABLE = frozenset({"finetune"})
LOADS_WEIGHTS = frozenset({"generate", "rank"})
WEIGHTS_MARK = "weights"
RELEASED_MARK = "released"


def canonical_json(value: object) -> str:
    """One spelling for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def short_hash(value: object) -> str:
    """The first 20 hexadecimal digits (80 bits) of the sha256 of a JSON value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:KEY_LENGTH]


# --- code ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Code:
    """The code that decides a result.

    Attributes:
        roots: a script ("scripts/finetune.py" as "finetune") or modules ("implicit_tuning.chat").
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
    if name in MACHINERY:
        return "machinery"
    return _syntax_digest(_read_module(name), _digest_with_imports)


@cache
def _in_order_of_import(root: str) -> tuple[str, ...]:
    """A module and all that it imports from the project, each behind its own imports."""
    graph: dict[str, list[str]] = {}
    waiting = [root]
    while waiting:
        name = waiting.pop()
        if name not in graph and name not in MACHINERY:
            imported = {found.module for found in _read_module(name).imports}
            graph[name] = sorted(imported - MACHINERY)
            waiting.extend(graph[name])
    try:
        return tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise ImportError(f"modules import one another in a circle: {circle}") from None


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
    """File of a project module ("implicit_tuning.chat") or of a script ("finetune")."""
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


# --- nodes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """Bytes that no job makes: a local file or folder.

    Attributes:
        path: where it lies now; in no key.
        digest: sha256 of a file; of a folder, the hash of its files' names and digests.
    """

    path: Path
    digest: str


@dataclass(frozen=True)
class Answers:
    """Answers of a judge or rewriter that a job keeps for later jobs, whatever becomes of its node.

    Attributes:
        place: folders and name of their file below the stage's folder of results/cache/.
        version: raised by hand where other answers would now be given; in the name of the file.
    """

    place: tuple[str, ...]
    version: int


@dataclass(frozen=True, eq=False)
class Node:
    """One unit of work.

    Attributes:
        stage: a key of LEVELS.
        levels: one name for each wildcard of the stage, except the key.
        code: what does the work.
        settings: the node's own slice of the config, plain JSON values.
        upstream: what it reads, by the name under which the code asks for it.
        runtime: values that the job needs and that decide no byte of the result; in no key.
        answers: those that its job keeps; None for a job that asks nobody.
    """

    stage: str
    levels: tuple[str, ...]
    code: Code
    settings: Mapping[str, Any]
    upstream: Mapping[str, "Node | Source"]
    runtime: Mapping[str, Any] = field(default_factory=dict)
    answers: Answers | None = None

    def above(self, name: str) -> "Node":
        """The node that it reads under a name; what is read there must not be a source."""
        found = self.upstream[name]
        assert isinstance(found, Node)
        return found

    @cached_property
    def plan_key(self) -> str:
        """Key from config and code alone: known before anything was built."""
        return self.key_over(
            {
                name: above.digest if isinstance(above, Source) else above.plan_key
                for name, above in self.upstream.items()
            }
        )

    def key_over(self, upstream: Mapping[str, str]) -> str:
        """Key of this node over the given identities of what it reads."""
        return short_hash(
            {
                "artifact_format": ARTIFACT_FORMAT,
                "stage": self.stage,
                "levels": self.levels,
                "code": self.code.fingerprint,
                "settings": self.settings,
                "upstream": upstream,
            }
        )

    @property
    def name(self) -> str:
        """Name for people: stage and levels, as in the path."""
        return "/".join((self.stage, *self.levels))


class Unpublished(LookupError):
    """The content of a cut-off node is not known yet, so keys below it are not either."""

    def __init__(self, node: Node) -> None:
        super().__init__(f"{node.name} has not been built yet, and keys below it need its content")
        self.node = node


class NodePaths:
    """Where nodes lie below a results folder, with the content of built cut-offs in the keys."""

    def __init__(self, results: Path) -> None:
        self.results = results
        # Asked for many times in a plan of thousands of nodes.
        self._keys: dict[Node, str] = {}
        self._contents: dict[Node, str] = {}
        self._folders: dict[Node, Path] = {}
        self._manifests: dict[Node, Path] = {}

    def key(self, node: Node) -> str:
        """Key of a node in its path.

        Raises:
            Unpublished: a cut-off above the node has not been built yet.
        """
        if node not in self._keys:
            self._keys[node] = node.key_over(
                {name: self.identity(above) for name, above in node.upstream.items()}
            )
        return self._keys[node]

    def identity(self, above: Node | Source) -> str:
        """What stands for an upstream node or source in the keys below it."""
        if isinstance(above, Source):
            return above.digest
        if above.stage not in CUT_OFF:
            return self.key(above)
        if above not in self._contents:
            self._contents[above] = self._published_digest(above)
        return self._contents[above]

    def _published_digest(self, node: Node) -> str:
        try:
            return read_sealed(self.manifest(node))["digest"]
        except (FileNotFoundError, ValueError, KeyError):
            raise Unpublished(node) from None

    def folder(self, node: Node) -> Path:
        """Folder of a node: data/, manifest.json, job.log and benchmark.tsv."""
        if node not in self._folders:
            levels = (*node.levels, self.key(node))
            self._folders[node] = self.results.joinpath("nodes", node.stage, *levels)
        return self._folders[node]

    def manifest(self, node: Node) -> Path:
        """The file that says that a node is built; written last."""
        if node not in self._manifests:
            self._manifests[node] = self.folder(node) / "manifest.json"
        return self._manifests[node]

    def weights(self, node: Node) -> Path:
        """The mark that says that a checkpoint still has its weights."""
        return self.folder(node) / WEIGHTS_MARK

    def answers(self, node: Node) -> Path | None:
        """The file of the answers that a node's job keeps; None for a job that asks nobody."""
        if node.answers is None:
            return None
        *folders, name = node.answers.place
        file = f"{name}.v{node.answers.version}.jsonl"
        return self.results.joinpath("cache", node.stage, *folders, file)

    def earlier_answers(self, node: Node) -> Path | None:
        """The folder whose own files may have answers too: those of the first version were named
        by the code that asked for them."""
        first = node.answers is not None and node.answers.version == 1
        return self.results / "cache" / node.stage if first else None

    @property
    def spending(self) -> Path:
        """Folder of the ledgers of what endpoints cost, one for all runs over these results."""
        return self.results / "cache" / "spending"

    def is_built(self, node: Node) -> bool:
        """Whether the node's manifest stands (its files are checked by its readers)."""
        return self.manifest(node).is_file()


def folder_pattern(results: Path | str, stage: str) -> str:
    """Snakemake pattern of a stage's folders, one wildcard a level and the key."""
    wildcards = [f"{{{name}}}" for name in (*LEVELS[stage], "key")]
    return "/".join((str(results), "nodes", stage, *wildcards))
