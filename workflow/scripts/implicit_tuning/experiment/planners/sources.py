"""Nodes of what runs are made of: data sets and the models that others trained."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from implicit_tuning.data.rewriters import kinds as rewriters
from implicit_tuning.experiment.config import Config, ConfigError
from implicit_tuning.experiment.plan import Plan
from implicit_tuning.nodes.code import PACKAGE, Code, short_hash
from implicit_tuning.nodes.digests import DigestMemory
from implicit_tuning.nodes.node import CacheFile, Node, Source
from implicit_tuning.remote.lockfile import Pin, lock_name

# Libraries whose versions decide the result of a stage.
MODEL_LIBRARIES = ("torch", "transformers", "tokenizers")
TRAINING_LIBRARIES = (*MODEL_LIBRARIES, "accelerate", "numpy")
READING = ("pyarrow",)
# What brings pinned bytes decides nothing about them.
PINNED = Code(())


@dataclass
class SourcePlanner:
    """Adds the nodes of data sets and bases to a plan, each once.

    `digests` has the sha256 of files that no job makes.
    """

    plan: Plan
    digests: DigestMemory
    _bases: dict[str, Node | Source] = field(default_factory=dict)

    @property
    def config(self) -> Config:
        return self.plan.config

    def base(self, name: str) -> Node | Source:
        """A base: pretrained by the workflow, or a folder."""
        if name not in self._bases:
            self._bases[name] = self._base(name)
        return self._bases[name]

    def _base(self, name: str) -> Node | Source:
        base = self.config.bases[name]
        if self.config.pretrain_base == "rebuild" and "recipe" in base:
            code = Code(("pretrain", f"{PACKAGE}.organism.pretraining"), TRAINING_LIBRARIES)
            return self.plan.add(
                Node("pretrain", (name,), code, {"recipe": base["recipe"]}, upstream={})
            )
        return self.model_folder(base)

    def model_folder(self, entry: Mapping) -> Node | Source:
        """The model of an entry with `path` or `hub`; one that two entries name is fetched once."""
        if "path" in entry:
            return Source(entry["path"], self.digests.of_model(entry["path"]))
        repo, pin = self._pinned("models", entry["hub"])
        # As the hub's own cache spells it.
        levels = (repo.replace("/", "--"),)
        settings = {"repo": repo, "commit": pin.commit}
        found = self.plan.find("fetch", levels)
        if found is None:
            files = {name: asdict(file) for name, file in sorted(pin.files.items())}
            return self.plan.add(Node("fetch", levels, PINNED, settings, {}, {"files": files}))
        if found.settings != settings:
            commits = f"{found.settings['commit']} and {pin.commit}"
            raise ConfigError([f"hub: '{repo}' is asked for at {commits}: name one revision"])
        return found

    def _pinned(self, kind: Literal["datasets", "models"], hub: Mapping) -> tuple[str, Pin]:
        """Repository and pin of a hub source. One that is not locked yet is planned under the
        revision that the config names, and refused before any job runs."""
        revision = hub.get("revision", "main")
        pin = self.config.lock.get(lock_name(kind, hub["repo"], revision))
        return hub["repo"], pin or Pin(revision, {})

    def formatted(self, dataset: str, options: Mapping[str, Any] | None = None) -> Node:
        """Format node of a data set; its variant keeps two ways of formatting it apart.

        `options` are the keys `instructions`, `rows` and `rephrase` of an adaptation.
        """
        options = options or {}
        entry = self.config.datasets[dataset]
        levels = (dataset, _variant(options))
        if found := self.plan.find("format", levels):
            return found
        settings = {
            "kind": entry["kind"],
            "formatter": entry["formatter"],
            "rows": options.get("rows", entry.get("rows")),
            "instructions": options.get("instructions", "given"),
            "max_characters": entry.get("max_characters"),
        }
        if "rows" in options:
            # An adaptation that is about the number of rows must have it.
            settings["exactly"] = True
        if "path" in entry:
            # It decides how the bytes are read; those of downloads stand in the download's key.
            settings["suffix"] = entry["path"].suffix.lower()
        node = Node(
            "format",
            levels,
            Code(
                (f"{PACKAGE}.data.formatting", f"{PACKAGE}.data.formatters.{entry['formatter']}"),
                READING,
            ),
            settings,
            {"source": self._source(dataset, entry)},
        )
        if "rephrase" in options:
            node = _rephrased(node, self.config.rewriters[options["rephrase"]])
        return self.plan.add(node)

    def _source(self, dataset: str, entry: Mapping) -> Node | Source:
        if "path" in entry:
            return Source(entry["path"], self.digests.of_file(entry["path"]))
        if found := self.plan.find("download", (dataset,)):
            return found
        # The script only chooses between the two; the identity is the module's.
        if "organism" in entry:
            code, made_of = Code((f"{PACKAGE}.organism.rows",)), {"organism": entry["organism"]}
            return self.plan.add(Node("download", (dataset,), code, made_of, upstream={}))
        if "url" in entry:
            fetched = {"url": dict(entry["url"])}
            return self.plan.add(Node("download", (dataset,), PINNED, fetched, upstream={}))
        (repo, pin), file = self._pinned("datasets", entry["hub"]), entry["hub"]["file"]
        settings: dict = {"hub": {"repo": repo, "commit": pin.commit, "file": file}}
        pinned = pin.files.get(file)
        if pinned is not None and pinned.first_rows is not None:
            settings["first_rows"] = pinned.first_rows
        runtime = {} if pinned is None else asdict(pinned)
        return self.plan.add(Node("download", (dataset,), PINNED, settings, {}, runtime))


def _rephrased(node: Node, rewriter: Mapping) -> Node:
    """A format node that also has responses rewritten."""
    name = rewriter["kind"]
    kind = rewriters.REWRITER_KINDS[name]
    roots = (*node.code.roots, f"{PACKAGE}.data.rephrasing", f"{PACKAGE}.data.rewriters.{name}")
    settings = rewriters.identity_settings(rewriter)
    # A rewrite is kept by what was asked and who was: not by which responses are given to rewrite.
    kept_by = {key: value for key, value in settings.items() if key not in rewriters.DETECTION}
    return replace(
        node,
        code=Code(roots, (*node.code.libraries, *kind.libraries)),
        settings={**node.settings, "rephrase": settings},
        runtime=rewriters.runtime_settings(rewriter),
        cache=CacheFile((name, short_hash(kept_by)), kind.version),
    )


def _variant(options: Mapping[str, Any]) -> str:
    """Name of a way to format a data set."""
    told = options.get("instructions", "given")
    variant = "plain" if told == "given" else f"{told}-instructions"
    if "rows" in options:
        variant += f"-{options['rows']}-rows"
    if "rephrase" in options:
        variant += f"-rephrased-by-{options['rephrase']}"
    return variant
