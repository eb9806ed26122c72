"""Identity of a node: what its result depends on, hashed into a key that is part of its path.

A node is one unit of work (one finetune, one comparison, ...). Its key is the hash of its stage,
the code that does the work, its own slice of the config and the identity of what it reads.
Another setting is therefore another path, and what is equal is shared.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from implicit_tuning.nodes.code import Code, short_hash
from implicit_tuning.nodes.files import read_sealed

# Raised by hand when the layout of artifacts changes: the machinery below is in no fingerprint.
ARTIFACT_FORMAT = 4

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
WEIGHTS_MARKER = "weights"
RELEASED_MARKER = "released"


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
class CacheFile:
    """A file of verdicts or rewrites that outlives the node whose job asked for them.

    Attributes:
        place: folders and name of the file below the stage's folder of results/cache/.
        version: raised by hand where a judge or rewriter would now reply otherwise; in the name.
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
        cache: file of the verdicts or rewrites that its job keeps; None for a job that asks nobody.
    """

    stage: str
    levels: tuple[str, ...]
    code: Code
    settings: Mapping[str, Any]
    upstream: Mapping[str, "Node | Source"]
    runtime: Mapping[str, Any] = field(default_factory=dict)
    cache: CacheFile | None = None

    def above(self, name: str) -> "Node":
        """The node that it reads under a name; what is read there must not be a source."""
        found = self.upstream[name]
        assert isinstance(found, Node)
        return found

    def level(self, name: str) -> str:
        """One of the node's levels by its name in LEVELS, such as "adaptation"."""
        return self.levels[LEVELS[self.stage].index(name)]

    @property
    def run(self) -> tuple[str, ...]:
        """Base, adaptation and seed of a node of one run."""
        return tuple(self.level(name) for name in LEVELS["finetune"])

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


class KeyNotKnown(LookupError):
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
            KeyNotKnown: a cut-off above the node has not been built yet.
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
            self._contents[above] = self._content_digest(above)
        return self._contents[above]

    def _content_digest(self, node: Node) -> str:
        try:
            return read_sealed(self.manifest(node))["digest"]
        except (FileNotFoundError, ValueError, KeyError):
            raise KeyNotKnown(node) from None

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
        """The marker that a checkpoint still has its weights."""
        return self.folder(node) / WEIGHTS_MARKER

    def cache(self, node: Node) -> Path | None:
        """The file of verdicts or rewrites of a node; None for a job that asks nobody."""
        if node.cache is None:
            return None
        *folders, name = node.cache.place
        file = f"{name}.v{node.cache.version}.jsonl"
        return self.results.joinpath("cache", node.stage, *folders, file)

    def earlier_caches(self, node: Node) -> Path | None:
        """The folder whose own files may have some too: those of the first version were named
        by the code that asked for them."""
        first = node.cache is not None and node.cache.version == 1
        return self.results / "cache" / node.stage if first else None

    @property
    def spending(self) -> Path:
        """Folder of the ledgers of what endpoints cost, one for all runs over these results."""
        return self.results / "cache" / "spending"

    def is_built(self, node: Node) -> bool:
        """Whether the node's manifest exists (its readers check its files)."""
        return self.manifest(node).is_file()


def folder_pattern(results: Path | str, stage: str) -> str:
    """Snakemake pattern of a stage's folders, one wildcard a level and the key."""
    wildcards = [f"{{{name}}}" for name in (*LEVELS[stage], "key")]
    return "/".join((str(results), "nodes", stage, *wildcards))
