"""Nodes of the results: tables, figures and the report."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from implicit_tuning import paper
from implicit_tuning.config import Config, ConfigError, merge
from implicit_tuning.judging.kinds import KINDS
from implicit_tuning.nodes.code import PACKAGE, SCRIPTS, Code, module_path
from implicit_tuning.nodes.digests import DigestMemory
from implicit_tuning.nodes.node import Node, Source
from implicit_tuning.paper import in_order
from implicit_tuning.plan import Plan
from implicit_tuning.plan_runs import reference_of, rule_settings

TABLE_LIBRARIES = ("pandas", "numpy", "scipy", "tabulate")
FIGURE_LIBRARIES = ("pandas", "numpy", "matplotlib")
REPORT_LIBRARIES = ("jinja2", "markupsafe", "pandas")
# The paper's instructions, as config/datasets.yaml names them.
PAPER_EVALUATION = "alpaca_eval"
# Layers and width of both of the paper's bases.
PAPER_SHAPE = (32, 4096)
# Tables of which a figure of the same name is drawn.
DRAWN = ("main", "loss", "ranking", "similarity", "drift", "epochs", "ablation")
# What sets the rows of an ablation apart that names no setting.
BY_NAME = "adaptation"
# Order of the report's tables; ablations come behind.
REPORTED = ("main", "claims", "paper", "ranking", "similarity", "drift", "guards", "epochs")
PAGE = {
    "template": "report.html.jinja",
    "style": "report.css",
    "script": "report.js",
}

Inputs = Mapping[str, Node | Source]
# Name, module, inputs and settings of a table.
TableSpec = tuple[str, str, Inputs, dict]


def add_tables(plan: Plan, digests: DigestMemory) -> None:
    """Add the tables that the config's runs allow."""
    calibration = calibration_source(plan.config.judges[plan.config.judge], digests)
    specs = (
        *_tables_of_comparisons(plan, calibration),
        *_tables_of_ablations(plan, calibration),
        *_tables_beside_the_paper(plan),
        *_tables_of_analyses(plan),
        *_table_of_guards(plan, calibration),
    )
    for name, module, upstream, settings in specs:
        formatters = {g["formatter"] for g in settings.get("guards", {}).values()}
        marks = (f"{PACKAGE}.datasets.{formatter}" for formatter in sorted(formatters))
        code = Code((f"{PACKAGE}.tables.{module}", *marks), TABLE_LIBRARIES)
        settings = {"table": name, "module": module, "label": plan.config.label, **settings}
        plan.add(Node("table", (name,), code, settings, upstream))


def _tables_of_comparisons(plan: Plan, calibration: Inputs) -> Iterator[TableSpec]:
    """What every experiment has."""
    config = plan.config
    judged = {**_by_levels(plan.comparisons()), **calibration}
    verdicts = {**_listed(config), **judging(config, config.adaptations)}
    yield "main", "main", judged, {**verdicts, "notes": table_notes(config)}
    yield "examples", "examples", _examples_inputs(plan), _listed(config)
    # Of the sweep over epochs, its own table tells.
    trained = [node for node in plan.stage("finetune") if node.levels[1] not in plan.sweeps]
    names = {node.levels[1] for node in trained}
    ordered = [name for name in listing(config) if name in names]
    yield "loss", "loss", _by_levels(trained), {"adaptations": ordered}


def _tables_of_ablations(plan: Plan, calibration: Inputs) -> Iterator[TableSpec]:
    config = plan.config
    for group, ablation in config.ablations.items():
        names = ablation["adaptations"]
        compared = _by_levels(node for node in plan.comparisons() if node.levels[1] in names)
        settings = {**judging(config, names), **_ablation_settings(config, ablation)}
        yield f"ablation-{group}", "ablation", {**compared, **calibration}, settings


def _tables_beside_the_paper(plan: Plan) -> Iterator[TableSpec]:
    """The paper's numbers are win rates against instruction tuning, and stand beside no others."""
    config = plan.config
    if config.reference != paper.REFERENCE or not any(paper_bases(config).values()):
        return
    settings = {
        **_listed(config),
        "paper_bases": paper_bases(config),
        "circumstances": circumstances(config),
        "references": judging(config, config.adaptations)["references"],
    }
    for name in ("paper", "claims"):
        yield name, name, _by_levels(plan.comparisons()), settings


def _tables_of_analyses(plan: Plan) -> Iterator[TableSpec]:
    """Rankings, similarities and the sweep over epochs, as far as the config asks for them."""
    config = plan.config
    if ranked := _by_levels(plan.stage("rank")):
        yield "ranking", "ranking", ranked, _listed(config)
    if measured := _by_levels(plan.stage("similarity")):
        settings: dict[str, Any] = {
            "reference": config.reference,
            "embedding": embedding(config),
            **_listed(config),
        }
        yield "similarity", "similarity", measured, settings
        if any(has_mark(node.settings["formatter"]) for node in measured.values()):
            yield "drift", "drift", measured, settings
    if selections := plan.stage("select"):
        tried = [node.above(name) for node in selections for name in node.upstream]
        sweep = {
            selection.above(epochs).levels[1]: [selection.levels[1], int(epochs)]
            for selection in selections
            for epochs in selection.upstream
        }
        settings = {**_listed(config), "sweep": sweep}
        yield "epochs", "epochs", _by_name([*selections, *tried]), settings


def _table_of_guards(plan: Plan, calibration: Inputs) -> Iterator[TableSpec]:
    """What guards cost the runs that they guard."""
    config = plan.config
    guards = {
        name: {
            "of": row["of"],
            "kind": row["guard"]["kind"],
            "formatter": config.datasets[config.adaptations[row["of"]]["data"]]["formatter"],
            "evaluation": row.get("evaluation"),
        }
        for name, row in config.adaptations.items()
        if row["kind"] == "guard"
    }
    if not guards:
        return
    both = {*guards, *(guard["of"] for guard in guards.values())}
    judged = [node for node in plan.stage("judge") if node.levels[1] in both]
    answers = [node.above("outputs") for node in judged]
    near = [node for node in plan.stage("similarity") if node.levels[1] in both]
    settings = {**_listed(config), **judging(config, both), "embedding": embedding(config)}
    settings["evaluation"] = config.evaluation
    yield (
        "guards",
        "guards",
        {**_by_name([*judged, *answers, *near]), **calibration},
        {**settings, "guards": guards},
    )


def add_figures(plan: Plan) -> None:
    """Add a figure for each table that is drawn."""
    for table in plan.stage("table"):
        module = table.settings["module"]
        if module in DRAWN:
            settings = {
                "figure": table.levels[0],
                "module": module,
                **_figure_settings(plan.config, table),
            }
            code = Code((f"{PACKAGE}.figures.{module}",), FIGURE_LIBRARIES)
            plan.add(Node("figure", table.levels, code, settings, {"table": table}))


def _figure_settings(config: Config, table: Node) -> dict:
    """What the module that draws a table asks for."""
    copied = {
        "loss": ("adaptations",),
        "ablation": ("title", "setting"),
        "main": ("reference",),
    }
    module = table.settings["module"]
    settings = {key: table.settings[key] for key in ("label", *copied.get(module, ()))}
    return {**settings, "controls": controls(config)} if module == "main" else settings


def add_report(plan: Plan, digests: DigestMemory) -> None:
    """Add the report, which shows every table and figure and whence each number comes."""
    # Downloads are left out: what they brought is in the keys behind the cut-off by its content.
    # What was fetched is not: its key stands in those of all that loads it.
    shown = [node for node in plan.nodes.values() if node.stage != "download"]
    files = {name: SCRIPTS.parent / "report" / file for name, file in PAGE.items()}
    page = {name: Source(file, digests.of_file(file)) for name, file in files.items()}
    tables = [node.levels[0] for node in plan.stage("table")]
    named = ("experiment", "label", "reference", "evaluation", "judge")
    settings = {name: getattr(plan.config, name) for name in named}
    settings |= {"headline": "main", "tables": sorted(tables, key=_place_in_report)}
    code = Code(("report",), REPORT_LIBRARIES)
    plan.add(Node("report", (), code, settings, {**_by_name(shown), **page}))


def _place_in_report(table: str) -> tuple[int, str]:
    """Tables in the order of the paper, then ablations and all others by name."""
    places = {name: place for place, name in enumerate(REPORTED)}
    return places.get(table, len(REPORTED)), table


# --- inputs -------------------------------------------------------------------------------------


def _by_levels(nodes: Iterator[Node] | list[Node]) -> dict[str, Node]:
    return {"/".join(node.levels): node for node in nodes}


def _by_name(nodes: list[Node]) -> dict[str, Node]:
    return {node.name: node for node in nodes}


def _examples_inputs(plan: Plan) -> dict[str, Node]:
    """Answers and verdicts of the first seed, and the instructions."""
    comparisons = [n for n in plan.comparisons() if n.levels[4] == str(min(plan.config.seeds))]
    answers = [node.above("outputs") for node in comparisons]
    return {
        **_by_name([*answers, *comparisons]),
        "instructions": comparisons[0].above("instructions"),
    }


def calibration_source(judge: Mapping, digests: DigestMemory) -> dict[str, Source]:
    """The judge's calibration as a table reads it; nothing before `make calibrate` wrote it."""
    path = judge.get("calibration")
    if path is None or not path.is_file():
        return {}
    return {"calibration": Source(path, digests.of_file(path))}


# --- settings -----------------------------------------------------------------------------------


def listing(config: Config) -> list[str]:
    """The adaptations in the order of a table's rows."""
    return in_order(config.adaptations, controls(config))


def _listed(config: Config) -> dict[str, Any]:
    return {"adaptations": listing(config)}


def judging(config: Config, adaptations: Iterable[str]) -> dict[str, Any]:
    """What a table must know of its verdicts: their references, and what is known of the judge."""
    own = {name: reference_of(config, name) for name in adaptations}
    return {
        "reference": config.reference,
        "references": {name: other for name, other in own.items() if other != config.reference},
        "judge_is_truth": KINDS[config.judges[config.judge]["kind"]].truth,
    }


def table_notes(config: Config) -> dict[str, str]:
    """Remarks on single adaptations, for the tables."""
    own = {n: a["note"] for n, a in config.adaptations.items() if "note" in a}
    return {config.reference: "reference: 50 by definition", **own}


def controls(config: Config) -> list[str]:
    """Adaptations that are no attempt to win, by name."""
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
    file = module_path(f"{PACKAGE}.datasets.{formatter}")
    return file is not None and "def has_mark(" in file.read_text(encoding="utf-8")


def paper_bases(config: Config) -> dict[str, str | None]:
    """Which of the paper's bases each base stands beside."""
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
