"""Nodes of the results: tables, figures and the report."""

from collections.abc import Iterator, Mapping
from typing import Any

from implicit_tuning.analysis import paper
from implicit_tuning.experiment.config import Config
from implicit_tuning.experiment.plan import Plan
from implicit_tuning.experiment.planners.table_settings import (
    _ablation_settings,
    circumstances,
    controls,
    embedding,
    has_mark,
    judging,
    listing,
    paper_bases,
    table_notes,
)
from implicit_tuning.nodes.code import PACKAGE, SCRIPTS, Code
from implicit_tuning.nodes.digests import DigestMemory
from implicit_tuning.nodes.node import Node, Source

TABLE_LIBRARIES = ("pandas", "numpy", "scipy", "tabulate")
FIGURE_LIBRARIES = ("pandas", "numpy", "matplotlib")
REPORT_LIBRARIES = ("jinja2", "markupsafe", "pandas")
# Tables of which a figure of the same name is drawn.
DRAWN = ("main", "loss", "ranking", "similarity", "drift", "epochs", "ablation")
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
        marks = (f"{PACKAGE}.data.formatters.{formatter}" for formatter in sorted(formatters))
        code = Code((f"{PACKAGE}.reporting.tables.{module}", *marks), TABLE_LIBRARIES)
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
    trained = [
        node for node in plan.stage("finetune") if node.level("adaptation") not in plan.sweeps
    ]
    names = {node.level("adaptation") for node in trained}
    ordered = [name for name in listing(config) if name in names]
    yield "loss", "loss", _by_levels(trained), {"adaptations": ordered}


def _tables_of_ablations(plan: Plan, calibration: Inputs) -> Iterator[TableSpec]:
    config = plan.config
    for group, ablation in config.ablations.items():
        names = ablation["adaptations"]
        compared = _by_levels(
            node for node in plan.comparisons() if node.level("adaptation") in names
        )
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
            selection.above(epochs).level("adaptation"): [
                selection.level("adaptation"),
                int(epochs),
            ]
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
    judged = [node for node in plan.stage("judge") if node.level("adaptation") in both]
    answers = [node.above("outputs") for node in judged]
    near = [node for node in plan.stage("similarity") if node.level("adaptation") in both]
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
                "figure": table.level("table"),
                "module": module,
                **_figure_settings(plan.config, table),
            }
            code = Code((f"{PACKAGE}.reporting.figures.{module}",), FIGURE_LIBRARIES)
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
    tables = [node.level("table") for node in plan.stage("table")]
    named = ("experiment", "label", "reference", "evaluation", "judge")
    settings = {name: getattr(plan.config, name) for name in named}
    settings |= {"headline": "main", "tables": sorted(tables, key=_place_in_report)}
    code = Code(("report",), REPORT_LIBRARIES)
    plan.add(Node("report", (), code, settings, {**_by_name(shown), **page}))


def _place_in_report(table: str) -> tuple[int, str]:
    """Tables in the order of the paper, then ablations and all others by name."""
    places = {name: place for place, name in enumerate(REPORTED)}
    return places.get(table, len(REPORTED)), table


def _by_levels(nodes: Iterator[Node] | list[Node]) -> dict[str, Node]:
    return {"/".join(node.levels): node for node in nodes}


def _by_name(nodes: list[Node]) -> dict[str, Node]:
    return {node.name: node for node in nodes}


def _examples_inputs(plan: Plan) -> dict[str, Node]:
    """Answers and verdicts of the first seed, and the instructions."""
    comparisons = [
        n for n in plan.comparisons() if n.level("reference_seed") == str(min(plan.config.seeds))
    ]
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


def _listed(config: Config) -> dict[str, Any]:
    return {"adaptations": listing(config)}
