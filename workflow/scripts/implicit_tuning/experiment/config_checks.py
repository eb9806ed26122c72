"""What a config names must exist and fit together; found before any job starts."""

import importlib.util
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from implicit_tuning.analysis.paper import CHOSEN_EPOCHS
from implicit_tuning.data.formatting import BUILDERS
from implicit_tuning.data.reading import SUFFIXES, UnreadableSource, read_rows
from implicit_tuning.data.rewriters.kinds import REWRITER_KINDS as REWRITERS
from implicit_tuning.data.rewriters.kinds import RewriterKind
from implicit_tuning.experiment.config import (
    SOURCES,
    Config,
    suggest,
    sweep_name,
    without_own_epochs,
)
from implicit_tuning.experiment.guard_checks import guard_problems
from implicit_tuning.judging.kinds import JUDGE_KINDS, JudgeKind
from implicit_tuning.models.chat import ChatFormat
from implicit_tuning.models.checks import checkpoint_problems, model_problems, one_place_problems
from implicit_tuning.nodes.code import PACKAGE, module_path
from implicit_tuning.organism.bases import RECIPES
from implicit_tuning.organism.rows import SOURCES as ORGANISM_SOURCES
from implicit_tuning.remote.web import file_name

# The keys that each kind of adaptation needs and may have, beside `kind` and `note`.
ADAPTATION_KEYS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    "none": (frozenset(), frozenset({"chat", "generation", "reference"})),
    "finetune": (
        frozenset({"data"}),
        frozenset(
            {"instructions", "rephrase", "rows", "chat", "training", "generation", "reference"}
        ),
    ),
    "checkpoint": (
        frozenset(),
        frozenset(
            {"path", "hub", "shape", "licence", "gated", "data", "chat", "generation", "reference"}
        ),
    ),
    "rules": (
        frozenset({"rules"}),
        frozenset({"rule_settings", "chat", "generation", "reference"}),
    ),
    "shuffled": (frozenset({"of"}), frozenset()),
    "guard": (frozenset({"of", "guard"}), frozenset({"evaluation"})),
}
OWN_TEMPLATE = (
    "only a model from elsewhere can have another template; give it to a row of kind checkpoint"
)
# Kinds whose runs others can be compared with.
TUNED = ("finetune", "checkpoint")
# A library that only one kind of embedding needs, as it is imported.
OPTIONAL_LIBRARY = "sentence_transformers"
# What a folder of a sentence-transformers model has, by glob pattern.
SENTENCE_FILES = {"modules.json": "modules.json", "safetensors weights": "**/*.safetensors"}


def reference_problems(config: Config) -> Iterator[str]:
    """Everything a config names that does not exist or does not fit, a line each."""
    yield from _chat_problems("chat", config.chat)
    if "own_template" in config.chat:
        yield f"chat.own_template: {config.chat['own_template']}: {OWN_TEMPLATE}"
    for name, adaptation in config.adaptations.items():
        yield from _adaptation_problems(config, name, adaptation)
    yield from _kind_of_row_problem(config, "reference", config.reference, TUNED)
    yield from _dataset_problems(config, "evaluation", config.evaluation, "evaluation")
    yield from _judge_problems(config)
    for name, base in config.bases.items():
        yield from _base_problems(config, name, base)
    yield from _epochs_problems(config)
    yield from _ranking_problems(config)
    yield from _embedding_problems(config)
    for name, entry in config.rewriters.items():
        yield from _kind_problems(f"rewriters.{name}", entry, REWRITERS[entry["kind"]], "rewriter")
    if config.audit is not None:
        yield from _adaptation_problem(config, "audit.adaptation", config.audit["adaptation"])
    for name, ablation in config.ablations.items():
        yield from _ablation_problems(config, f"ablations.{name}", ablation)


def _chat_problems(where: str, chat: Mapping[str, Any]) -> Iterator[str]:
    try:
        ChatFormat(**chat)
    except ValueError as error:
        yield f"{where}: {error}"


def _template_problems(where: str, adaptation: Mapping) -> Iterator[str]:
    own = adaptation["chat"].get("own_template")
    if own and adaptation["kind"] != "checkpoint":
        yield f"{where}.own_template: {own}: {OWN_TEMPLATE}"
    for tag in sorted(set(adaptation["chat"]) - {"own_template"}) if own else ():
        yield f"{where}.{tag}: under a template of its own no tag counts; remove it, or own_template"


def _adaptation_problems(config: Config, name: str, adaptation: Mapping) -> Iterator[str]:
    kind = adaptation["kind"]
    needed, allowed = ADAPTATION_KEYS[kind]
    given = set(adaptation) - {"kind", "note", "bases"}
    for key in sorted(needed - given):
        yield f"adaptations.{name}.{key}: missing: an adaptation of kind '{kind}' needs it"
    for key in sorted(given - needed - allowed):
        yield (
            f"adaptations.{name}.{key}: {adaptation[key]!r}: an adaptation of kind '{kind}' has no "
            "such key; remove it"
        )
    if kind in TUNED and "data" in adaptation:
        yield from _dataset_problems(
            config, f"adaptations.{name}.data", adaptation["data"], "training"
        )
    if "bias" in adaptation.get("rules", ()) and not config.rules["bias"]:
        yield f"rules.bias: {{}}: adaptations.{name} uses the rule 'bias'; give it pieces"
    yield from _bases_problems(config, name, adaptation)
    if kind == "checkpoint":
        own = {n: base for n, base in config.bases.items() if name in config.adapted(n)}
        yield from checkpoint_problems(f"adaptations.{name}", adaptation, own)
    guarded = TUNED if kind == "guard" else ("finetune",)
    for key, kinds in (("of", guarded), ("reference", TUNED)):
        if key in adaptation:
            where = f"adaptations.{name}.{key}"
            yield from _kind_of_row_problem(config, where, adaptation[key], kinds)
    if "reference" in adaptation:
        yield from _own_reference_problems(config, name, adaptation["reference"])
    if "chat" in adaptation:
        where = f"adaptations.{name}.chat"
        yield from _chat_problems(where, {**config.chat, **adaptation["chat"]})
        yield from _template_problems(where, adaptation)
    if "rephrase" in adaptation:
        yield from _rephrase_problems(config, name, adaptation)
    if "evaluation" in adaptation:
        key = f"adaptations.{name}.evaluation"
        yield from _dataset_problems(config, key, adaptation["evaluation"], "evaluation")
    if kind == "guard":
        yield from guard_problems(config, name, adaptation)


def _bases_problems(config: Config, name: str, adaptation: Mapping) -> Iterator[str]:
    """Bases that do not exist, or that lack what the adaptation's answers are compared with."""
    where = f"adaptations.{name}.bases"
    for base in adaptation.get("bases", ()):
        if base not in config.bases:
            yield f"{where}: '{base}' is no base; {suggest(base, config.bases)}"
    needed = [adaptation.get("reference", config.reference), *filter(None, [adaptation.get("of")])]
    for other in needed:
        limits = config.adaptations.get(other, {}).get("bases", config.bases)
        own = set(adaptation.get("bases", config.bases)) & set(config.bases)
        for base in sorted(own - set(limits)):
            yield (
                f"{where}: '{name}' is compared with '{other}', which '{base}' is not given: add "
                f"'{base}' to adaptations.{other}.bases, or take it from here"
            )


def _rephrase_problems(config: Config, name: str, adaptation: Mapping) -> Iterator[str]:
    rewriter, data = adaptation["rephrase"], adaptation.get("data")
    where = f"adaptations.{name}.rephrase: '{rewriter}'"
    of_organism = "organism" in config.datasets.get(data or "", {})
    if rewriter not in config.rewriters:
        yield f"{where} is no rewriter; {suggest(rewriter, config.rewriters)}"
    elif config.rewriters[rewriter]["kind"] == "organism" and not of_organism:
        yield (
            f"{where} knows the answers of the organism alone, and data is '{data}'; take a rewriter "
            "of kind 'openai'"
        )


def _own_reference_problems(config: Config, name: str, reference: str) -> Iterator[str]:
    where = f"adaptations.{name}.reference: '{reference}'"
    if name == config.reference:
        yield f"{where}: '{name}' is the reference of all others, and has none itself; remove it"
    elif name == reference:
        yield f"{where}: a run is not compared with itself; name another"
    elif "reference" in config.adaptations.get(reference, {}):
        yield (
            f"{where} is compared with '{config.adaptations[reference]['reference']}' itself: name "
            "an adaptation without a reference of its own"
        )


def _kind_of_row_problem(
    config: Config, key: str, adaptation: str, kinds: Collection[str]
) -> Iterator[str]:
    if adaptation not in config.adaptations:
        yield f"{key}: '{adaptation}' is no adaptation; {suggest(adaptation, config.adaptations)}"
    elif config.adaptations[adaptation]["kind"] not in kinds:
        known = " or ".join(f"'{kind}'" for kind in kinds)
        yield f"{key}: '{adaptation}' must be an adaptation of kind {known}"


def _dataset_problems(config: Config, key: str, name: str, kind: str) -> Iterator[str]:
    if name not in config.datasets:
        yield f"{key}: '{name}' is no data set; {suggest(name, config.datasets)}"
        return
    entry, where = config.datasets[name], f"datasets.{name}"
    if entry["kind"] != kind:
        yield f"{key}: '{name}' is a data set of kind '{entry['kind']}', not '{kind}'"
    yield from _formatter_problems(where, entry)
    given = [source for source in SOURCES if source in entry]
    if len(given) != 1:
        yield f"{where}: give exactly one of {', '.join(SOURCES)}, not {given or 'none'}"
    elif "path" in entry:
        yield from _path_problems(where, entry["path"])
    elif {"url", "hub"} & set(entry):
        yield from _remote_file_problems(where, entry)
    elif "organism" in entry and entry["organism"] not in ORGANISM_SOURCES:
        yield (
            f"{where}.organism: '{entry['organism']}' is no source of the organism; "
            f"{suggest(entry['organism'], ORGANISM_SOURCES)}"
        )


def _formatter_problems(where: str, entry: Mapping) -> Iterator[str]:
    builder = BUILDERS[entry["kind"]]
    formatter = entry["formatter"]
    file = (
        module_path(f"{PACKAGE}.data.formatters.{formatter}") if formatter.isidentifier() else None
    )
    if file is None:
        folder = f"workflow/scripts/{PACKAGE}/data/formatters"
        yield f"{where}.formatter: '{formatter}': there is no {folder}/{formatter}.py"
    elif f"def {builder}(" not in file.read_text(encoding="utf-8"):
        yield (
            f"{where}.formatter: '{formatter}' has no {builder}, so it is not for "
            f"{entry['kind']}; correct formatter or kind"
        )


def _remote_file_problems(where: str, entry: Mapping) -> Iterator[str]:
    key, file = (
        ("url.address", entry["url"]["address"])
        if "url" in entry
        else ("hub.file", entry["hub"]["file"])
    )
    name = file_name(file) if "url" in entry else file
    if Path(name).suffix.lower() not in SUFFIXES:
        yield f"{where}.{key}: '{file}': unknown suffix; known are {', '.join(SUFFIXES)}"


def _path_problems(where: str, path: Path) -> Iterator[str]:
    if path.is_dir():
        yield f"{where}.path: '{path}' is a folder; give the file in it"
    elif not path.is_file():
        yield (
            f"{where}.path: '{path}' does not exist; correct the path, or data_root "
            "('make real' takes it from DATA=...)"
        )
    elif path.suffix.lower() not in SUFFIXES:
        yield f"{where}.path: '{path}': unknown suffix; known are {', '.join(SUFFIXES)}"


def _evaluations(config: Config) -> dict[str, str]:
    """The evaluation sets in use, by the key that names them."""
    found = {"evaluation": config.evaluation}
    if config.epochs == "selected" and config.epoch_selection is not None:
        found["epoch_selection.evaluation"] = config.epoch_selection["evaluation"]
    for name, row in config.adaptations.items():
        if "evaluation" in row:
            found[f"adaptations.{name}.evaluation"] = row["evaluation"]
    return found


def _judge_problems(config: Config) -> Iterator[str]:
    if config.judge not in config.judges:
        yield f"judge: '{config.judge}' is no judge; {suggest(config.judge, config.judges)}"
        return
    judge, where = config.judges[config.judge], f"judges.{config.judge}"
    for key, name in _evaluations(config).items() if judge["kind"] == "oracle" else ():
        if config.datasets.get(name, {}).get("formatter") != "organism_evaluation":
            yield (
                f"{where}.kind: 'oracle' knows the truth of the organism's instructions only, and "
                f"{key} is '{name}'; choose another judge"
            )
    kind = JUDGE_KINDS[judge["kind"]]
    yield from _kind_problems(where, judge, kind, "judge")
    if kind.loads_base and judge.get("base", "") not in ("", *config.bases):
        yield f"{where}.base: '{judge['base']}' is no base; {suggest(judge['base'], config.bases)}"
    if kind.own_model:
        yield from model_problems(where, judge)
    if "df_gamed" in judge and not judge["df_gamed"].is_file():
        yield (
            f"{where}.df_gamed: '{judge['df_gamed']}' does not exist; correct the path, or remove "
            "the key to go without length-controlled win rates"
        )
    if "calibration" in judge and judge["calibration"].is_dir():
        yield f"{where}.calibration: '{judge['calibration']}' is a folder; give the file in it"


def _epochs_problems(config: Config) -> Iterator[str]:
    if config.epochs == "selected":
        yield from _selection_problems(config)
    for base, entry in config.bases.items() if config.epochs == "paper" else ():
        asking = set(without_own_epochs(config)) & set(config.adapted(base))
        if "paper" not in entry:
            if asking:
                yield (
                    f"bases.{base}.paper: missing: with epochs 'paper', say whose epochs this base "
                    f"takes ({' or '.join(CHOSEN_EPOCHS)})"
                )
            continue
        for name in sorted(asking - set(CHOSEN_EPOCHS[entry["paper"]])):
            yield (
                f"adaptations.{name}.training.epochs: missing: the paper tells none for '{name}' "
                f"of {entry['paper']}, so with epochs 'paper' the row needs its own"
            )


def _selection_problems(config: Config) -> Iterator[str]:
    selection = config.epoch_selection
    if selection is None:
        yield "epoch_selection: missing: epochs is 'selected', which needs the choices and a data set"
        return
    name = selection["evaluation"]
    yield from _dataset_problems(config, "epoch_selection.evaluation", name, "evaluation")
    if not _may_have_references(config.datasets.get(name, {})):
        yield (
            f"epoch_selection.evaluation: '{name}' has no reference answers to choose epochs "
            "against: take a data set whose rows have an 'output', of formatter 'instructions' or "
            "'organism_evaluation'"
        )
    for adaptation in without_own_epochs(config):
        for epochs in selection["epochs"]:
            if sweep_name(adaptation, epochs) in config.adaptations:
                yield (
                    f"adaptations.{sweep_name(adaptation, epochs)}: the name is taken by the sweep "
                    f"of '{adaptation}' over {epochs} epochs; rename it"
                )


def _may_have_references(entry: Mapping) -> bool:
    """Whether an evaluation set has reference answers, as far as is known without a download."""
    file = module_path(f"{PACKAGE}.data.formatters.{entry.get('formatter')}")
    if file is None or "with_reference(" not in file.read_text(encoding="utf-8"):
        return file is None  # which is said already
    rows: Iterable[Mapping] = ()
    if "organism" in entry and entry["organism"] in ORGANISM_SOURCES:
        rows = ORGANISM_SOURCES[entry["organism"]][1]()
    elif "path" in entry and entry["path"].is_file():
        rows = read_rows(entry["path"])
    try:
        return "output" in next(iter(rows), {"output": None})
    except UnreadableSource:
        return True  # the format job says what is wrong with it


def _ranking_problems(config: Config) -> Iterator[str]:
    if config.ranking is None:
        return
    yield from _dataset_problems(config, "ranking.data", config.ranking["data"], "training")
    for name in config.ranking.get("adaptations", ()):
        yield from _adaptation_problem(config, "ranking.adaptations", name)
        if config.adaptations.get(name, {}).get("kind") in ("rules", "shuffled", "guard"):
            yield f"ranking.adaptations: '{name}' has no model of its own to rank with; remove it"


def _adaptation_problem(config: Config, key: str, name: str) -> Iterator[str]:
    if name not in config.adaptations:
        yield f"{key}: '{name}' is no adaptation; {suggest(name, config.adaptations)}"


def _embedding_problems(config: Config) -> Iterator[str]:
    if config.embedding is None:
        return
    if config.embedding not in config.embeddings:
        known = suggest(config.embedding, config.embeddings)
        yield f"embedding: '{config.embedding}' is no embedding; {known}"
        return
    entry, where = config.embeddings[config.embedding], f"embeddings.{config.embedding}"
    if entry["kind"] == "tfidf":
        for key in sorted(set(entry) - {"kind"}):
            yield f"{where}.{key}: {entry[key]!r}: an embedding of kind 'tfidf' has no such key"
        return
    yield from one_place_problems(where, entry)
    for what, pattern in SENTENCE_FILES.items() if "path" in entry else ():
        if not any(entry["path"].glob(pattern)):
            yield (
                f"{where}.path: '{entry['path']}' is no folder of a sentence-transformers model (it "
                f"has no {what}); correct the path, or take an embedding of kind 'tfidf'"
            )
    if importlib.util.find_spec(OPTIONAL_LIBRARY) is None:
        yield (
            f"{where}.kind: '{entry['kind']}' needs the library sentence-transformers: run "
            "'pip install -e .[embeddings]', or take an embedding of kind 'tfidf'"
        )


def _ablation_problems(config: Config, where: str, ablation: Mapping) -> Iterator[str]:
    for name in ablation["adaptations"]:
        yield from _adaptation_problem(config, f"{where}.adaptations", name)
    if ablation["baseline"] not in ablation["adaptations"]:
        yield (
            f"{where}.baseline: '{ablation['baseline']}' is not among its adaptations; "
            f"{suggest(ablation['baseline'], ablation['adaptations'])}"
        )


def _kind_problems(
    where: str, entry: Mapping, kind: JudgeKind | RewriterKind, what: str
) -> Iterator[str]:
    """Keys that an entry of a kind lacks, or has too many."""
    given = {key for key, value in entry.items() if value is not None}
    for key in sorted(set(kind.required) - given):
        yield f"{where}.{key}: missing: a {what} of kind '{entry['kind']}' needs it"
    for key in sorted(set(entry) - kind.keys):
        yield f"{where}.{key}: {entry[key]!r}: a {what} of kind '{entry['kind']}' has no such key"
    for key in sorted(set(kind.together) & given):
        for other in sorted(set(kind.together[key]) - given):
            yield f"{where}.{other}: missing: '{key}' needs it beside it; add it"


def _base_problems(config: Config, name: str, base: Mapping) -> Iterator[str]:
    if "recipe" in base and base["recipe"] not in RECIPES:
        known = suggest(base["recipe"], list(RECIPES))
        yield f"bases.{name}.recipe: '{base['recipe']}' is no recipe; {known}"
    if config.pretrain_base == "rebuild" and "recipe" in base:
        return
    yield from model_problems(f"bases.{name}", base)
