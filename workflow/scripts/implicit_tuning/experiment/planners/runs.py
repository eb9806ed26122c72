"""Nodes of the runs: finetunes, generations, comparisons, rankings, similarities."""

from collections.abc import Mapping
from dataclasses import replace

from implicit_tuning.analysis.paper import CHOSEN_EPOCHS
from implicit_tuning.experiment.config import Config, merge, sweep_name, without_own_epochs
from implicit_tuning.experiment.plan import Plan
from implicit_tuning.experiment.planners.sources import (
    MODEL_LIBRARIES,
    TRAINING_LIBRARIES,
    SourcePlanner,
)
from implicit_tuning.generation.engines.kinds import generation_code
from implicit_tuning.generation.guards import kinds as guards
from implicit_tuning.judging.kinds import (
    ALWAYS,
    JUDGE_KINDS,
    LENGTH_CONTROL_LIBRARIES,
    comparison_settings,
    identity_settings,
    runtime_settings,
)
from implicit_tuning.models.adapters import is_adapter
from implicit_tuning.nodes.code import PACKAGE, Code
from implicit_tuning.nodes.digests import DigestMemory, model_files
from implicit_tuning.nodes.node import CacheFile, Node, Source

# Libraries whose versions decide the result of a stage.
SELECTION_LIBRARIES = ("numpy", "scipy")
EMBEDDING_LIBRARIES = {
    "tfidf": ("scikit-learn", "numpy", "scipy"),
    "sentence_transformers": ("sentence-transformers", *MODEL_LIBRARIES, "numpy"),
}
# The keys of `rules` that each rule of the adapter uses.
RULE_KEYS = {
    "eos": ("eos_ramp_tokens", "eos_strength", "eos_after_ramp"),
    "repetition": ("repetition_penalty",),
    "bias": ("bias",),
}
NO_SEED = "none"
# Keys that say which model an entry takes: its identity is what lies there.
OF_MODEL_FOLDERS = frozenset({"path", "hub", "shape", "licence", "gated"})


class RunPlanner(SourcePlanner):
    """Adds the nodes of runs to a plan, each with all that it reads, and each once."""

    # --- finetunes ------------------------------------------------------------------------------

    def finetune(self, base: str, adaptation: str, seed: int) -> Node:
        """A run's checkpoint."""
        chosen = self.plan.adaptations[adaptation]
        levels = (base, adaptation, str(seed))
        if found := self.plan.find("finetune", levels):
            return found
        options = {k: chosen[k] for k in ("instructions", "rows", "rephrase") if k in chosen}
        upstream = {
            "base": self.base(base),
            "rows": self.formatted(chosen["data"], options),
        }
        training = self._training(base, adaptation)
        if training["epochs"] == "selected":
            upstream["epochs"] = self.selection(base, adaptation)
        settings = {"seed": seed, "chat": self._chat(chosen), "training": training}
        runtime = {"save_every": self.config.runtime["save_every"]}
        code = Code(("finetune",), training_libraries(training))
        return self.plan.add(Node("finetune", levels, code, settings, upstream, runtime))

    def _training(self, base: str, adaptation: str) -> dict:
        """Hyper-parameters of a run; `epochs` is "selected" where a sweep decides them."""
        chosen, entry = self.plan.adaptations[adaptation], self.config.bases[base]
        training = merge(self.config.training, entry.get("training", {}))
        if self.config.epochs == "paper" and "epochs" not in chosen.get("training", {}):
            training["epochs"] = CHOSEN_EPOCHS[entry["paper"]][adaptation]
        if self.config.epochs == "selected":
            training["epochs"] = "selected"
        return merge(training, chosen.get("training", {}))

    def _chat(self, chosen: Mapping) -> dict:
        own = chosen.get("chat", {})
        if own.get("own_template"):
            return {"own_template": True}  # under which no tag counts
        return {**self.config.chat, **{k: v for k, v in own.items() if k != "own_template"}}

    def selection(self, base: str, adaptation: str) -> Node:
        """The choice among numbers of epochs, each tried in a run of its own (paper, section 3)."""
        levels = (base, adaptation)
        if found := self.plan.find("select", levels):
            return found
        upstream = {
            str(epochs): self._validation(base, sweep_name(adaptation, epochs))
            for epochs in sorted(self._selection["epochs"])
        }
        code = Code(("select_epochs",), SELECTION_LIBRARIES)
        return self.plan.add(Node("select", levels, code, {}, upstream))

    @property
    def _selection(self) -> Mapping:
        assert self.config.epoch_selection is not None  # the checks of the config ask for it
        return self.config.epoch_selection

    def _validation(self, base: str, sweep: str) -> Node:
        """A run of the sweep against the reference answers of the validation set."""
        evaluation = self._selection["evaluation"]
        seed = self._selection["seed"]
        generation = self.generation(base, sweep, seed, evaluation)
        return self._judge(generation, self.formatted(evaluation), evaluation, NO_SEED)

    # --- answers and what measures them ---------------------------------------------------------

    def generation(
        self, base: str, adaptation: str, seed: int, evaluation: str | None = None
    ) -> Node:
        """The run's answers; base and rules have no seed of their own and are generated once."""
        evaluation = evaluation or self.config.evaluation
        chosen = self.plan.adaptations[adaptation]
        kind = chosen["kind"]
        trained = self.plan.adaptations[chosen.get("of", adaptation)]["kind"] == "finetune"
        levels = (base, adaptation, str(seed) if trained else NO_SEED, evaluation)
        if found := self.plan.find("generate", levels):
            return found
        if kind == "guard":
            run = self.generation(base, chosen["of"], seed, evaluation)
            return self.plan.add(self._guarded(run, adaptation, seed))
        if kind == "shuffled":
            upstream = {"outputs": self.generation(base, chosen["of"], seed)}
            settings = {"generator": adaptation, "seed": seed}
            return self.plan.add(Node("generate", levels, Code(("shuffle",)), settings, upstream))
        reads: dict[str, Node | Source] = {
            "model": self.model(base, adaptation, seed),
            "instructions": self.formatted(evaluation),
        }
        decoding = merge(self.config.generation, chosen.get("generation", {}))
        settings = {
            "generator": adaptation,
            "chat": self._chat(chosen),
            "generation": decoding,
            "rules": rule_settings(self.config, chosen) if kind == "rules" else None,
        }
        code = generation_code(decoding["engine"])
        runtime = {"vllm_python": self.config.runtime.get("vllm_python")}
        return self.plan.add(Node("generate", levels, code, settings, reads, runtime))

    def _guarded(self, run: Node, name: str, seed: int) -> Node:
        """The answers of a run under a guard, which has all of the run but its own settings.

        `name` is the guard's adaptation. A checkpoint of elsewhere has no seed in its levels.
        """
        base, adaptation, *others = run.levels
        guard = guards.identity_settings(self.plan.adaptations[name]["guard"])
        levels, own = (base, name, *others), {"generator": name, "guard": guard}
        if guards.GUARD_KINDS[guard["kind"]].decodes:
            code = guards.guard_code(guard["kind"], run.code)
            return replace(run, levels=levels, code=code, settings={**run.settings, **own})
        folder, embedding, libraries = self.embedder()
        upstream = {"outputs": run, "task_rows": self.task_rows(base, adaptation, seed), **folder}
        code = guards.guard_code(guard["kind"], Code((), libraries))
        return Node("generate", levels, code, {**own, "embedding": embedding}, upstream)

    def model(self, base: str, adaptation: str, seed: int) -> Node | Source:
        """The weights that an adaptation runs: its own, or the base's."""
        chosen = self.plan.adaptations[adaptation]
        if chosen["kind"] == "finetune":
            return self.finetune(base, adaptation, seed)
        if chosen["kind"] == "checkpoint":
            return self._checkpoint(base, adaptation)
        return self.base(base)

    def _checkpoint(self, base: str, adaptation: str) -> Node | Source:
        """A model from elsewhere; of an adapter, what it makes of the base."""
        found = self.model_folder(self.plan.adaptations[adaptation])
        levels = (base, adaptation)
        # A model that is not locked has no files yet.
        files = model_files(found.path) if isinstance(found, Source) else found.runtime["files"]
        if not is_adapter(files):
            return found
        if merged := self.plan.find("merge", levels):
            return merged
        upstream = {"base": self.base(base), "adapter": found}
        settings = {"dtype": self.config.training["storage_dtype"]}
        runtime = {"repo": self.config.bases[base].get("hub", {}).get("repo")}
        code = Code(("merge",), (*MODEL_LIBRARIES, "peft"))
        return self.plan.add(Node("merge", levels, code, settings, upstream, runtime))

    def comparison(
        self, base: str, adaptation: str, seed: int, evaluation: str | None = None
    ) -> Node:
        """A run against its reference run of the same base and seed (paper, section 3)."""
        evaluation = evaluation or self.config.evaluation
        reference = reference_of(self.config, adaptation)
        references = self.generation(base, reference, seed, evaluation)
        generation = self.generation(base, adaptation, seed, evaluation)
        return self._judge(generation, references, evaluation, str(seed))

    def _judge(
        self, generation: Node, references: Node, evaluation: str, reference_seed: str
    ) -> Node:
        judge = self.config.judges[self.config.judge]
        levels = (*generation.levels, reference_seed, self.config.judge)
        if found := self.plan.find("judge", levels):
            return found
        upstream: dict[str, Node | Source] = {
            "outputs": generation,
            "references": references,
            "instructions": self.formatted(evaluation),
            **self._judges_own_files(judge),
        }
        kind = JUDGE_KINDS[judge["kind"]]
        # The script only chooses the judge; the identity is that of the chosen one and of the door.
        modules = (f"{PACKAGE}.judging.alpaca", f"{PACKAGE}.judging.judges.{judge['kind']}")
        libraries = LENGTH_CONTROL_LIBRARIES if judge.get("length_controlled") else ()
        code = Code(modules, (*ALWAYS, *kind.libraries, *libraries))
        settings = {"judge": identity_settings(judge), "comparison": comparison_settings(judge)}
        if kind.chat:
            settings["chat"] = dict(self.config.chat)
        # A run that changed, another way of counting verdicts or an edit of the judge's code must not
        # pay again for what was judged.
        kept = CacheFile(levels, kind.version)
        runtime = runtime_settings(judge)
        return self.plan.add(Node("judge", levels, code, settings, upstream, runtime, kept))

    def _judges_own_files(self, judge: Mapping) -> dict[str, Node | Source]:
        kind, files = JUDGE_KINDS[judge["kind"]], {}
        if kind.loads_base:
            files["judge"] = self.base(judge["base"])
        if kind.own_model:
            files["judge"] = self.model_folder(judge)
        if "df_gamed" in judge:
            files["df_gamed"] = Source(judge["df_gamed"], self.digests.of_file(judge["df_gamed"]))
        return files

    def ranking(self, base: str, adaptation: str, seed: int) -> Node:
        """How a model ranks real responses against random ones (paper, section 4)."""
        ranking, chosen = self.config.ranking, self.plan.adaptations[adaptation]
        assert ranking is not None  # else nothing asks for it
        own_seed = str(seed) if chosen["kind"] == "finetune" else NO_SEED
        levels = (base, adaptation, own_seed, ranking["data"])
        if found := self.plan.find("rank", levels):
            return found
        keys = ("random_responses", "max_length", "batch_size")
        arithmetic = {key: self.config.generation[key] for key in ("dtype", "device", "attention")}
        settings = {
            "chat": self._chat(chosen),
            "ranking": {**{key: ranking[key] for key in keys}, **arithmetic},
        }
        upstream = {
            "model": self.model(base, adaptation, seed),
            "pairs": self.formatted(ranking["data"]),
        }
        code = Code(("rank",), MODEL_LIBRARIES)
        return self.plan.add(Node("rank", levels, code, settings, upstream))

    def similarity(self, base: str, adaptation: str, seed: int) -> Node:
        """How near the answers of a single-task run stay to its task (paper, section 5.2)."""
        config = self.config
        folder, embedding, libraries = self.embedder()
        generation = self.generation(base, adaptation, seed)
        upstream: dict[str, Node | Source] = {
            "outputs": generation,
            "reference_outputs": self.generation(base, config.reference, seed),
            "task_rows": self.task_rows(base, adaptation, seed),
            "reference_rows": self._general_rows(base, seed),
        }
        upstream |= folder
        formatter = config.datasets[config.adaptations[adaptation]["data"]]["formatter"]
        settings = {"formatter": formatter, "embedding": embedding}
        # The task's module tells its mark.
        roots = ("similarity", f"{PACKAGE}.data.formatters.{formatter}")
        code = Code(roots, libraries)
        # A model without a seed is held against the reference run of each.
        levels = (base, adaptation, str(seed), config.evaluation, config.embedding or "")
        return self.plan.add(Node("similarity", levels, code, settings, upstream))

    def _general_rows(self, base: str, seed: int) -> Node:
        """The rows of general responses: the reference's, or those that an audit names."""
        audit = self.config.audit or {}
        if "general" in audit:
            return self.formatted(audit["general"])
        return self.task_rows(base, self.config.reference, seed)

    def task_rows(self, base: str, adaptation: str, seed: int) -> Node:
        """The rows that an adaptation was finetuned on, with its own `rows` and `rephrase`; of a
        checkpoint from elsewhere, those that it says."""
        chosen = self.plan.adaptations[adaptation]
        if chosen["kind"] == "checkpoint":
            return self.formatted(chosen["data"])
        return self.finetune(base, adaptation, seed).above("rows")

    def embedder(self) -> tuple[dict[str, Node | Source], dict, tuple[str, ...]]:
        """The config's embedding: the folder of its model, if it has one, by the name under which it
        is read; its settings; the libraries that decide it."""
        entry = self.config.embeddings[self.config.embedding or ""]
        has_model = {"path", "hub"} & set(entry)
        folder = {"embedding": self.model_folder(entry)} if has_model else {}
        settings = {k: v for k, v in entry.items() if k not in OF_MODEL_FOLDERS}
        return folder, settings, EMBEDDING_LIBRARIES[entry["kind"]]


def training_libraries(training: Mapping) -> tuple[str, ...]:
    """Libraries whose versions decide a checkpoint."""
    with_lora = ("peft",) if training["lora"] is not None else ()
    sharded = ("deepspeed",) if training["sharding"] == "zero3" else ()
    return (*TRAINING_LIBRARIES, *with_lora, *sharded)


def add_runs(plan: Plan, digests: DigestMemory) -> None:
    """Add every node that a run of the config needs, and what measures it."""
    planner, config = RunPlanner(plan, digests), plan.config
    ranked = _ranked(config)
    for base in config.bases:
        for seed in config.seeds:
            for name in config.adapted(base):
                planner.comparison(base, name, seed)
                row = config.adaptations[name]
                if "evaluation" in row:  # a guard's, of its task
                    for run in (name, row["of"]):
                        planner.comparison(base, run, seed, row["evaluation"])
                if name in ranked:
                    planner.ranking(base, name, seed)
                if plan.has_similarity(name):
                    planner.similarity(base, name, seed)


def sweep_rows(config: Config) -> dict[str, dict]:
    """Rows of the sweep over epochs by the names of their runs; none where epochs are fixed."""
    if config.epochs != "selected" or config.epoch_selection is None:
        return {}
    return {
        sweep_name(name, epochs): merge(config.adaptations[name], {"training": {"epochs": epochs}})
        for name in without_own_epochs(config)
        for epochs in config.epoch_selection["epochs"]
    }


def rule_settings(config: Config, adaptation: Mapping) -> dict:
    """Settings of the chosen rules alone: another rule's strength is no part of the result."""
    values = merge(config.rules, adaptation.get("rule_settings", {}))
    used = {key: values[key] for rule in adaptation["rules"] for key in RULE_KEYS[rule]}
    return {"rules": sorted(adaptation["rules"]), **used}


def reference_of(config: Config, adaptation: str) -> str:
    """The adaptation whose run an adaptation's is compared with."""
    row = config.adaptations[adaptation]
    own = config.adaptations[row["of"]] if row["kind"] == "guard" else row
    return own.get("reference", config.reference)


def _ranked(config: Config) -> set[str]:
    """The adaptations that rank responses: by default all that have a model."""
    if config.ranking is None:
        return set()
    kinds = ("none", "finetune", "checkpoint")
    with_model = {n for n, a in config.adaptations.items() if a["kind"] in kinds}
    return set(config.ranking.get("adaptations", with_model))
