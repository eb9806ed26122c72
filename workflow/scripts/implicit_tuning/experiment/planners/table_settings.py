"""Settings of tables: what a table must know of its config."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from implicit_tuning.analysis import paper
from implicit_tuning.analysis.paper import in_order
from implicit_tuning.experiment.config import Config, ConfigError, merge
from implicit_tuning.experiment.planners.runs import reference_of, rule_settings
from implicit_tuning.judging.kinds import JUDGE_KINDS
from implicit_tuning.nodes.code import PACKAGE, module_path

# The paper's instructions, as config/datasets.yaml names them.
PAPER_EVALUATION = "alpaca_eval"
# Layers and width of both of the paper's bases.
PAPER_SHAPE = (32, 4096)
# What sets the rows of an ablation apart that names no setting.
BY_NAME = "adaptation"


def listing(config: Config) -> list[str]:
    """The adaptations in the order of a table's rows."""
    return in_order(config.adaptations, controls(config))


def judging(config: Config, adaptations: Iterable[str]) -> dict[str, Any]:
    """What a table must know of its verdicts: their references, and what is known of the judge."""
    own = {name: reference_of(config, name) for name in adaptations}
    return {
        "reference": config.reference,
        "references": {name: other for name, other in own.items() if other != config.reference},
        "judge_is_truth": JUDGE_KINDS[config.judges[config.judge]["kind"]].truth,
    }


def table_notes(config: Config) -> dict[str, str]:
    """Remarks on single adaptations, for the tables."""
    own = {n: a["note"] for n, a in config.adaptations.items() if "note" in a}
    return {config.reference: "reference: 50 by definition", **own}


def controls(config: Config) -> list[str]:
    """Adaptations that are controls and not meant to win, by name."""
    return sorted(n for n, a in config.adaptations.items() if a["kind"] == "shuffled")


def _ablation_settings(config: Config, ablation: Mapping) -> dict[str, Any]:
    names = ablation["adaptations"]
    setting = ablation.get("setting", BY_NAME)
    return {
        "title": ablation["title"],
        "adaptations": list(names),
        "baseline": ablation["baseline"],
        "setting": setting,
        "settings": {
            base: {
                name: _value_of(config, base, name, setting)
                for name in names
                if name in config.adapted(base)
            }
            for base in config.bases
        },
    }


def _value_of(config: Config, base: str, adaptation: str, setting: str) -> object:
    """The value of a dotted key in what an adaptation of a base is built from.

    Raises:
        ConfigError: the adaptation has no such key.
    """
    if setting == BY_NAME:
        return adaptation
    chosen = config.adaptations[adaptation]
    of_base = config.bases[base].get("training", {})
    value: object = {
        "rows": config.datasets.get(chosen.get("data", ""), {}).get("rows"),
        **chosen,
        "training": merge(merge(config.training, of_base), chosen.get("training", {})),
        "generation": merge(config.generation, chosen.get("generation", {})),
        "rules": rule_settings(config, chosen) if chosen["kind"] == "rules" else {},
    }
    for key in setting.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(value, int | float | str):
        problem = (
            f"ablations: setting '{setting}' has no value for '{adaptation}': name a key that all "
            "its adaptations have, or none, and they are told apart by name"
        )
        raise ConfigError([problem])
    return value


def embedding(config: Config) -> str:
    """The embedding by name and kind, as captions say it."""
    name = config.embedding or ""
    kind = config.embeddings[name]["kind"]
    return name if kind == name else f"{name} ({kind})"


def has_mark(formatter: str) -> bool:
    """Whether a data set's module tells a mark of its responses, as `datasets.rows` says."""
    file = module_path(f"{PACKAGE}.data.formatters.{formatter}")
    return file is not None and "def has_mark(" in file.read_text(encoding="utf-8")


def paper_bases(config: Config) -> dict[str, str | None]:
    """The base of the paper that each base is compared with."""
    return {name: base.get("paper") for name, base in config.bases.items()}


def circumstances(config: Config) -> list[str]:
    """What sets this experiment apart from the paper's, a sentence each."""
    judge = config.judges[config.judge]
    found = [_scale(name, base) for name, base in config.bases.items()]
    if config.evaluation != PAPER_EVALUATION:
        found.append(f"the instructions are those of {config.evaluation}, not AlpacaEval's 805")
    if judge.get("model") != paper.JUDGE:
        kind = "" if judge["kind"] == config.judge else f" ({judge['kind']})"
        found.append(f"the judge is {config.judge}{kind}, not {paper.JUDGE}")
    found.append("our win rates are raw, the paper's are length-controlled")
    if len(config.seeds) != paper.SEEDS:
        seeds = (
            "there is one finetuning seed"
            if len(config.seeds) == 1
            else (f"there are {len(config.seeds)} finetuning seeds")
        )
        found.append(f"{seeds}, not {paper.SEEDS}")
    return [sentence for sentence in found if sentence]


def _scale(name: str, base: Mapping) -> str:
    """What sets a base apart from the paper's 7B models; nothing for one of their shape."""
    if "recipe" in base:
        return f"{name} is a model organism, built to show the effect, no 7B model"
    if "hub" in base:
        layers, width = (base.get("shape", {}).get(key, "unknown") for key in ("layers", "width"))
    else:
        shape = json.loads((base["path"] / "config.json").read_text(encoding="utf-8"))
        layers, width = shape.get("num_hidden_layers"), shape.get("hidden_size")
    if (layers, width) == PAPER_SHAPE:
        return ""
    return f"{name} has {layers} layers of width {width}, the paper's bases 32 of 4096"
