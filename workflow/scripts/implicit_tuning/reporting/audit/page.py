"""The page of an audit, made as the report is, and its numbers as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from implicit_tuning.nodes.files import write_atomically
from implicit_tuning.reporting.audit.measures import Inputs, measure
from implicit_tuning.reporting.audit.verdict import RULE, decide, percent, points
from implicit_tuning.reporting.page.build import Page, render
from implicit_tuning.reporting.page.provenance import Provenance
from implicit_tuning.reporting.tables.comparisons import read_result, with_judge

PAGE_FILE = "audit.html"
NUMBERS_FILE = "audit.json"
WEIGHTS = ".safetensors"
DRAW = 1.5  # preference of a judge that finds both answers as good


@dataclass(frozen=True)
class Audit:
    """What was asked, in words for the page.

    Attributes:
        judge: the judge by name, kind and model.
        judge_is_truth: whether it is right by construction.
        titles: names of the models by side.
        notes: how it was asked.
        missing: what was not measured, and why.
        sources: sha256 by file of the weights that no job made, by side.
    """

    label: str
    evaluation: str
    judge: str
    judge_is_truth: bool
    titles: Mapping[str, str]
    notes: Sequence[str]
    missing: Sequence[str]
    sources: Mapping[str, Mapping[str, str]]


def write_audit(
    destination: Path,
    audit: Audit,
    inputs: Inputs,
    nodes: Mapping[str, Path],
    roles: Mapping[str, Any],
    page: Page,
    calibration: Path | None,
) -> str:
    """Writes audit.html and audit.json; returns the verdict's sentence.

    `nodes` has the folder of every node of the audit by its name (stage/levels), and `roles` the
    names of the nodes that `inputs` are. Without `calibration` the judge has none.

    Raises:
        ValueError: no answer of the run was judged.
    """
    measured = measure(inputs)
    provenance = Provenance(nodes)
    titles = dict(audit.titles)
    verdict = decide(measured["win_rates"], titles, audit.evaluation, audit.judge)
    models = _models(audit, provenance, roles)
    content = {
        "label": audit.label,
        "titles": titles,
        "verdict": asdict(verdict),
        "rule": RULE,
        "evaluation": audit.evaluation,
        "judge": audit.judge,
        "judge_note": _judge_note(audit, inputs, roles, calibration),
        "notes": [*_same_weights_note(models), *audit.notes],
        "missing": list(audit.missing),
        "models": models,
        **measured,
    }
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_atomically(destination / NUMBERS_FILE, text + "\n")
    shown = {
        **content,
        "origins": _origins(provenance, roles),
        "stages": provenance.by_stage(),
        "provenance": provenance.embedded(),
        "percent": percent,
        "points": points,
        "remark": remark,
    }
    write_atomically(destination / PAGE_FILE, render(page, shown))
    return verdict.sentence


def describe_audit(content: Mapping) -> str:
    """The verdict of an audit.json, for the terminal."""
    verdict = content["verdict"]
    lines = [verdict["sentence"], verdict["numbers"], content["judge_note"], *content["notes"]]
    lines += [f"not measured: {line}" for line in content["missing"]]
    return "\n".join(filter(None, lines))


def remark(answer: Mapping) -> str:
    """How an answer fared, and how long it is."""
    preference = answer["preference"]
    if answer["is_reference"]:
        told = "reference"
    elif preference is None:
        told = "not judged"
    else:
        told = "tie" if preference == DRAW else "win" if preference > DRAW else "loss"
    ended = "cut at the limit" if answer["finish"] == "length" else ""
    return ", ".join(filter(None, (told, f"{answer['n_tokens']} tokens", ended)))


def _judge_note(audit: Audit, inputs: Inputs, roles: Mapping, calibration: Path | None) -> str:
    """What is known of the judge, as far as it is not right by construction."""
    if audit.judge_is_truth:
        return "The judge knows the true answers."
    name = roles["comparisons"]["audited"].partition("/")[2]
    run = read_result(name, inputs.comparisons["audited"])
    known = with_judge("", {(run.judge, run.base, run.adaptation): [run]}, False, calibration)
    return f"{known[:1].upper()}{known[1:]}: its verdicts are one model's opinion."


def _models(audit: Audit, provenance: Provenance, roles: Mapping) -> list[dict]:
    """Each model with the sha256 of its weights, and the node that made it, if one did."""
    models = []
    for side, answers in roles["answers"].items():
        made = provenance.above(answers).get("model")
        weights = dict(audit.sources.get(side, {}))
        if made is not None:
            files = provenance.manifests[made]["files"]
            weights = {n: entry["sha256"] for n, entry in files.items() if n.endswith(WEIGHTS)}
        title = audit.titles[side]
        models.append({"side": side, "title": title, "made_by": made, "weights": weights})
    return models


def _same_weights_note(models: Sequence[Mapping]) -> list[str]:
    """A line where the audited model is its base, whatever it is called."""
    weights = {model["side"]: sorted(model["weights"].values()) for model in models}
    if not weights["audited"] or weights["audited"] != weights.get("base"):
        return []
    (title,) = (model["title"] for model in models if model["side"] == "audited")
    return [f"{title} has the very weights of its base: nothing was finetuned."]


def _origins(provenance: Provenance, roles: Mapping) -> dict[str, str]:
    """Numbers of the nodes behind each part of the page, as the page's script wants them."""
    parts = {
        **{f"answers {side}": [name] for side, name in roles["answers"].items()},
        **{f"rate {side}": [name] for side, name in roles["comparisons"].items()},
        "difference": [roles["comparisons"].get(side) for side in ("audited", "base")],
        "ranking": list(roles["rankings"].values()),
        "similarity": [roles["similarity"]],
    }
    return {
        part: " ".join(str(provenance.number(name)) for name in names if name is not None)
        for part, names in parts.items()
    }
