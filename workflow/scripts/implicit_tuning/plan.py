"""The plan of an experiment: every node that its config asks for, known before any job runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from implicit_tuning.config import Config, merge
from implicit_tuning.digests import DigestMemory
from implicit_tuning.judging.kinds import (
    ALWAYS,
    KINDS,
    LENGTH_CONTROL_LIBRARIES,
    comparison_settings,
    identity_settings,
    runtime_settings,
)
from implicit_tuning.nodes import (
    LEVELS,
    LOADS_WEIGHTS,
    PACKAGE,
    RELEASABLE,
    Code,
    Node,
    NodePaths,
    Source,
    Unpublished,
)
from implicit_tuning.paper import in_order

# Libraries whose versions decide the result of a stage.
MODEL_LIBRARIES = ("torch", "transformers", "tokenizers")
TRAINING_LIBRARIES = (*MODEL_LIBRARIES, "accelerate", "numpy")
TABLE_LIBRARIES = ("pandas", "numpy", "scipy", "tabulate")
FIGURE_LIBRARIES = ("pandas", "matplotlib")
# Stages whose nodes a run asks for by themselves; the others are built for them.
ASKED_FOR = ("format", "judge", "table", "figure")
# The keys of `rules` that each rule of the adapter uses.
RULE_KEYS = {
    "eos": ("eos_ramp_tokens", "eos_strength", "eos_after_ramp"),
    "repetition": ("repetition_penalty",),
    "bias": ("bias",),
}


@dataclass
class Plan:
    """All nodes of one experiment.

    Attributes:
        config: what was asked for.
        nodes: every node by stage and levels.
    """

    config: Config
    nodes: dict[tuple[str, tuple[str, ...]], Node] = field(default_factory=dict)

    def stage(self, stage: str) -> list[Node]:
        """Nodes of one stage."""
        return [node for node in self.nodes.values() if node.stage == stage]

    def find(self, stage: str, levels: tuple[str, ...]) -> Node | None:
        """The node at these levels, or None if the config does not ask for it."""
        return self.nodes.get((stage, levels))

    def groups(self) -> dict[str, list[Node]]:
        """Comparisons by the data set that their runs were trained on ("none" for no training)."""
        groups: dict[str, list[Node]] = {}
        for node in self.stage("judge"):
            adaptation = self.config.adaptations[node.levels[1]]
            adaptation = self.config.adaptations[adaptation.get("of", node.levels[1])]
            groups.setdefault(adaptation.get("data", "none"), []).append(node)
        return groups

    def way(self, adaptation: str) -> str:
        """How an adaptation finetunes: "instruction", "response" or "single_task"."""
        chosen = self.config.adaptations[adaptation]
        if chosen.get("blank_instruction"):
            return "response"
        broad = self.config.adaptations[self.config.reference]["data"]
        return "instruction" if chosen["data"] == broad else "single_task"

    def loading(self, checkpoint: Node) -> list[Node]:
        """The nodes that load the weights of a checkpoint."""
        return self._loading.get(checkpoint, [])

    @cached_property
    def _loading(self) -> dict[Node, list[Node]]:
        loading: dict[Node, list[Node]] = {}
        for node in self.nodes.values():
            for above in node.upstream.values() if node.stage in LOADS_WEIGHTS else ():
                if isinstance(above, Node):
                    loading.setdefault(above, []).append(node)
        return loading

    def add(self, node: Node) -> Node:
        """Enter a node at its levels, which no other node may have."""
        assert (node.stage, node.levels) not in self.nodes, node.name
        self.nodes[node.stage, node.levels] = node
        return node


def build_plan(config: Config, digests: DigestMemory) -> Plan:
    """Every node of the experiment, linked to what it reads."""
    plan = Plan(config)
    sources = _Sources(plan, digests)
    for base in config.bases:
        for seed in config.seeds:
            for adaptation in config.adaptations:
                _add_comparison(plan, sources, base, adaptation, seed)
    _add_tables(plan, digests)
    _add_figures(plan)
    digests.save()
    return plan


# --- data and bases -----------------------------------------------------------------------------


@dataclass
class _Sources:
    """Nodes and sources that many runs share."""

    plan: Plan
    digests: DigestMemory
    bases: dict[str, Node | Source] = field(default_factory=dict)

    def base(self, name: str) -> Node | Source:
        if name not in self.bases:
            self.bases[name] = self._base(name)
        return self.bases[name]

    def _base(self, name: str) -> Node | Source:
        config = self.plan.config
        base = config.bases[name]
        if config.pretrain_base == "rebuild" and "recipe" in base:
            code = Code(("pretrain", f"{PACKAGE}.organism.pretraining"), TRAINING_LIBRARIES)
            return self.plan.add(
                Node("pretrain", (name,), code, {"recipe": base["recipe"]}, upstream={})
            )
        return Source(base["path"], self.digests.of_model(base["path"]))

    def formatted(self, dataset: str, options: Mapping[str, object]) -> Node:
        """Format node of a data set; its variant keeps two ways of formatting it apart."""
        entry = self.plan.config.datasets[dataset]
        blank = bool(options.get("blank_instruction", False))
        variant = "blank-instruction" if blank else "plain"
        if "rows" in options:
            variant += f"-{options['rows']}-rows"
        levels = (dataset, variant)
        if found := self.plan.find("format", levels):
            return found
        settings = {
            "kind": entry["kind"],
            "formatter": entry["formatter"],
            "rows": options.get("rows", entry.get("rows")),
            "blank_instruction": blank,
            "max_characters": entry.get("max_characters"),
        }
        if "path" in entry:
            # It decides how the bytes are read; those of downloads stand in the download's key.
            settings["suffix"] = entry["path"].suffix.lower()
        code = Code(("format", f"{PACKAGE}.datasets.{entry['formatter']}"), ("pyarrow",))
        upstream = {"source": self._source(dataset, entry)}
        return self.plan.add(Node("format", levels, code, settings, upstream))

    def _source(self, dataset: str, entry: Mapping) -> Node | Source:
        if "path" in entry:
            return Source(entry["path"], self.digests.of_file(entry["path"]))
        if found := self.plan.find("download", (dataset,)):
            return found
        kind = "organism" if "organism" in entry else "hub"
        module = f"{PACKAGE}.organism.rows" if kind == "organism" else f"{PACKAGE}.sources"
        # The script only chooses between the two; the identity is the module's.
        code = Code((module,))
        return self.plan.add(Node("download", (dataset,), code, {kind: entry[kind]}, upstream={}))


# --- runs ---------------------------------------------------------------------------------------


def _finetune(plan: Plan, sources: _Sources, base: str, adaptation: str, seed: int) -> Node:
    config, chosen = plan.config, plan.config.adaptations[adaptation]
    levels = (base, adaptation, str(seed))
    if found := plan.find("finetune", levels):
        return found
    training = merge(config.training, config.bases[base].get("training", {}))
    settings = {
        "seed": seed,
        "chat": config.chat,
        "training": merge(training, chosen.get("training", {})),
    }
    options = {key: chosen[key] for key in ("blank_instruction", "rows") if key in chosen}
    upstream = {
        "base": sources.base(base),
        "rows": sources.formatted(chosen["data"], options),
    }
    runtime = {"save_every": config.runtime["save_every"]}
    code = Code(("finetune",), TRAINING_LIBRARIES)
    return plan.add(Node("finetune", levels, code, settings, upstream, runtime))


def _generation(plan: Plan, sources: _Sources, base: str, adaptation: str, seed: int) -> Node:
    """The run's answers; base and rules have no seed of their own and are generated once."""
    config, chosen = plan.config, plan.config.adaptations[adaptation]
    kind = chosen["kind"]
    own_seed = str(seed) if kind in ("finetune", "shuffled") else "none"
    levels = (base, adaptation, own_seed, config.evaluation)
    if found := plan.find("generate", levels):
        return found
    if kind == "shuffled":
        upstream = {"outputs": _generation(plan, sources, base, chosen["of"], seed)}
        settings = {"generator": adaptation, "seed": seed}
        return plan.add(Node("generate", levels, Code(("shuffle",)), settings, upstream))
    finetuned = kind == "finetune"
    upstream = {
        "model": _finetune(plan, sources, base, adaptation, seed)
        if finetuned
        else sources.base(base),
        "instructions": sources.formatted(config.evaluation, {}),
    }
    settings = {
        "generator": adaptation,
        "chat": config.chat,
        "generation": merge(config.generation, chosen.get("generation", {})),
        "rules": _rule_settings(config, chosen["rules"]) if kind == "rules" else None,
    }
    code = Code(("generate",), MODEL_LIBRARIES)
    return plan.add(Node("generate", levels, code, settings, upstream))


def _rule_settings(config: Config, rules: list[str]) -> dict:
    """Settings of the chosen rules alone: another rule's strength is no part of the result."""
    used = {key: config.rules[key] for rule in rules for key in RULE_KEYS[rule]}
    return {"rules": sorted(rules), **used}


def _add_comparison(plan: Plan, sources: _Sources, base: str, adaptation: str, seed: int) -> None:
    """A run against the reference run of the same base and seed (paper, section 3)."""
    config = plan.config
    judge = config.judges[config.judge]
    generation = _generation(plan, sources, base, adaptation, seed)
    upstream: dict[str, Node | Source] = {
        "outputs": generation,
        "references": _generation(plan, sources, base, config.reference, seed),
        "instructions": sources.formatted(config.evaluation, {}),
    }
    kind = KINDS[judge["kind"]]
    if kind.loads_base:
        upstream["judge"] = sources.base(judge["base"])
    if kind.loads_folder:
        upstream["judge"] = Source(judge["path"], sources.digests.of_model(judge["path"]))
    if "df_gamed" in judge:
        upstream["df_gamed"] = Source(judge["df_gamed"], sources.digests.of_file(judge["df_gamed"]))
    levels = (*generation.levels, str(seed), config.judge)
    # The script only chooses the judge; the identity is that of the chosen one and of the door.
    modules = (f"{PACKAGE}.judging.alpaca", f"{PACKAGE}.judging.{judge['kind']}")
    libraries = LENGTH_CONTROL_LIBRARIES if judge.get("length_controlled") else ()
    code = Code(modules, (*ALWAYS, *kind.libraries, *libraries))
    settings = {"judge": identity_settings(judge), "comparison": comparison_settings(judge)}
    if kind.chat:
        settings["chat"] = config.chat
    # Verdicts are kept by their content: a run that changed, or another way of counting verdicts,
    # must not pay again for what was judged. Another code of the judge itself asks anew.
    asking = Code((f"{PACKAGE}.judging.{judge['kind']}",), kind.libraries)
    kept_by = [levels, asking.fingerprint]
    runtime = runtime_settings(judge)
    plan.add(Node("judge", levels, code, settings, upstream, runtime, kept_by))


# --- tables and figures -------------------------------------------------------------------------


def _add_tables(plan: Plan, digests: DigestMemory) -> None:
    config = plan.config
    judge = config.judges[config.judge]
    comparisons = {"/".join(node.levels): node for node in plan.stage("judge")}
    ablation = {
        name: node
        for name, node in comparisons.items()
        if config.adaptations[node.levels[1]]["kind"] in ("none", "rules")
    }
    finetunes = {"/".join(node.levels): node for node in plan.stage("finetune")}
    settings = {
        "label": config.label,
        "reference": config.reference,
        "adaptations": in_order(config.adaptations, controls(config)),
        "notes": table_notes(config),
    }
    # What is known of the judge stands in the tables of its verdicts, and in no other key.
    judged = {"judge_is_truth": KINDS[judge["kind"]].truth}
    calibration = calibration_source(judge, digests)
    tables = {
        "main": ({**comparisons, **calibration}, judged),
        "rules": ({**ablation, **calibration}, judged),
        "loss": (finetunes, {}),
    }
    for name, (upstream, own) in tables.items():
        if name == "rules" and not any(a["kind"] == "rules" for a in config.adaptations.values()):
            continue
        code = Code(("table",), TABLE_LIBRARIES)
        plan.add(Node("table", (name,), code, {"table": name, **settings, **own}, upstream))


def _add_figures(plan: Plan) -> None:
    others = controls(plan.config)
    for name in ("main", "loss"):
        settings = {
            "figure": name,
            "label": plan.config.label,
            "reference": plan.config.reference,
            "adaptations": in_order(plan.config.adaptations, others),
            "controls": others,
        }
        upstream = {"table": plan.nodes["table", (name,)]}
        code = Code(("figure",), FIGURE_LIBRARIES)
        plan.add(Node("figure", (name,), code, settings, upstream))


def calibration_source(judge: Mapping, digests: DigestMemory) -> dict[str, Source]:
    """The judge's calibration as a table reads it; nothing before `make calibrate` wrote it."""
    path = judge.get("calibration")
    if path is None or not path.is_file():
        return {}
    return {"calibration": Source(path, digests.of_file(path))}


def table_notes(config: Config) -> dict[str, str]:
    """Remarks on single adaptations, for the tables."""
    own = {n: a["note"] for n, a in config.adaptations.items() if "note" in a}
    return {config.reference: "reference: 50 by definition", **own}


def controls(config: Config) -> list[str]:
    """Adaptations that are no attempt to win, by name."""
    return sorted(n for n, a in config.adaptations.items() if a["kind"] == "shuffled")


# --- questions to a plan ------------------------------------------------------------------------


def is_built(paths: NodePaths, node: Node) -> bool:
    """Whether a node is built under its present key; no, while the key is not known."""
    try:
        return paths.is_built(node)
    except Unpublished:
        return False


def pending(plan: Plan, paths: NodePaths) -> set[Node]:
    """What a run would build: what it asks for and lacks, and what that needs and lacks in turn.

    A lost node that nobody needs is not among them; a checkpoint whose weights were given up is,
    where a pending node loads them.
    """
    asked = [n for n in plan.nodes.values() if n.stage in ASKED_FOR and not is_built(paths, n)]
    found: set[Node] = set()
    while asked:
        node = asked.pop()
        found.add(node)
        above = [n for n in node.upstream.values() if isinstance(n, Node) and n not in found]
        asked += [n for n in above if not is_built(paths, n) or _lacks_weights(paths, n, node)]
    return found


def _lacks_weights(paths: NodePaths, above: Node, reader: Node) -> bool:
    loads = reader.stage in LOADS_WEIGHTS and above.stage in RELEASABLE
    return loads and not paths.weights(above).is_file()


def count_by_stage(plan: Plan, paths: NodePaths) -> list[tuple[str, int, int, int]]:
    """Stage, nodes of the config, nodes that stand, nodes to do; for each stage with nodes."""
    waiting = pending(plan, paths)
    counts = []
    for stage in LEVELS:
        nodes = plan.stage(stage)
        if nodes:
            built = sum(is_built(paths, node) for node in nodes)
            counts.append((stage, len(nodes), built, sum(node in waiting for node in nodes)))
    return counts
