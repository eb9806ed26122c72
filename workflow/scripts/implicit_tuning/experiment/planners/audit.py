"""The node of an audit: one page about one run, from all that measures it."""

from collections.abc import Mapping

from implicit_tuning.experiment.config import Config
from implicit_tuning.experiment.plan import Plan
from implicit_tuning.experiment.planners.tables import (
    REPORT_LIBRARIES,
    TABLE_LIBRARIES,
    calibration_source,
)
from implicit_tuning.judging.kinds import JUDGE_KINDS
from implicit_tuning.nodes.code import PACKAGE, SCRIPTS, Code
from implicit_tuning.nodes.digests import DigestMemory, model_files
from implicit_tuning.nodes.node import Node, Source

BASE = "base"
# What a judge's entry names its model by, in the order of preference.
JUDGES_MODEL = ("model", "base", "hub", "path")
PAGE = {"template": "audit.html.jinja", "style": "report.css", "script": "report.js"}


def add_audit(plan: Plan, digests: DigestMemory) -> None:
    """Add the page of the run that the config's `audit` names."""
    config, audit = plan.config, plan.config.audit
    assert audit is not None  # else there is no audit to plan
    (base,) = {node.level("base") for node in plan.comparisons()}
    rows = {"audited": audit["adaptation"], "reference": config.reference}
    if BASE in config.adaptations:
        rows["base"] = BASE
    runs = {
        role: next(n for n in plan.comparisons() if n.level("adaptation") == row)
        for role, row in rows.items()
    }
    files = {name: SCRIPTS.parent / "report" / file for name, file in PAGE.items()}
    page = {name: Source(file, digests.of_file(file)) for name, file in files.items()}
    shown = {node.name: node for node in plan.nodes.values() if node.stage != "download"}
    calibration = calibration_source(config.judges[config.judge], digests)
    settings = {
        "label": config.label,
        "evaluation": config.evaluation,
        "judge": judge_words(config),
        "judge_is_truth": JUDGE_KINDS[config.judges[config.judge]["kind"]].truth,
        "titles": dict(audit["titles"]),
        "notes": list(audit["notes"]),
        "missing": list(audit["missing"]),
        "roles": _roles(plan, runs),
        "sources": _weights_of_sources(runs, digests),
    }
    code = Code(("audit", f"{PACKAGE}.reporting.audit.page"), (*REPORT_LIBRARIES, *TABLE_LIBRARIES))
    levels = (base, rows["audited"], runs["audited"].level("seed"))
    plan.add(Node("audit", levels, code, settings, {**shown, **calibration, **page}))


def _roles(plan: Plan, runs: Mapping[str, Node]) -> dict[str, object]:
    """Names of the nodes that the page reads, by what they are to the audited run."""
    answers = {role: run.above("outputs") for role, run in runs.items()}
    if answers["reference"] in (answers["audited"], answers.get("base")):
        del answers["reference"]  # they stand on the page already
    row = runs["audited"].level("adaptation")
    rankings = {n.run: n.name for n in plan.stage("rank")}
    ranked = {r: rankings.get(n.run) for r, n in answers.items() if r != "reference"}
    measured = [n.name for n in plan.stage("similarity") if n.level("adaptation") == row]
    return {
        "instructions": runs["audited"].above("instructions").name,
        "answers": {role: node.name for role, node in answers.items()},
        "comparisons": {role: node.name for role, node in runs.items()},
        "rankings": {role: name for role, name in ranked.items() if name is not None},
        "similarity": measured[0] if measured else None,
    }


def _weights_of_sources(runs: Mapping[str, Node], digests: DigestMemory) -> dict[str, dict]:
    """sha256 of the weights that no job makes, by file; those of nodes stand in their manifests."""
    models = {role: run.above("outputs").upstream["model"] for role, run in runs.items()}
    return {
        role: {
            name: digests.of_file(path)
            for name, path in model_files(model.path).items()
            if path.suffix == ".safetensors"
        }
        for role, model in models.items()
        if isinstance(model, Source)
    }


def judge_words(config: Config) -> str:
    """The judge by name, kind and model, as the page names it."""
    judge = config.judges[config.judge]
    model = next((judge[key] for key in JUDGES_MODEL if judge.get(key)), "")
    model = model["repo"] if isinstance(model, Mapping) else getattr(model, "name", model)
    kind = "" if judge["kind"] == config.judge else judge["kind"]
    known = ", ".join(filter(None, (kind, model)))
    return f"{config.judge} ({known})" if known else config.judge
