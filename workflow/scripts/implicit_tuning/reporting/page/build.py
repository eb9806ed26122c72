"""The report of an experiment: one HTML file that needs nothing beside it.

Everything that a model wrote is escaped by the template, only the script of the page itself may
run, and no other address is ever asked (both by a content security policy too). The bytes depend on
the nodes alone, but for run times and costs, which are measured.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup

from implicit_tuning.data.reading import read_rows
from implicit_tuning.nodes.files import write_atomically
from implicit_tuning.reporting.page.examples import Question, questions
from implicit_tuning.reporting.page.provenance import Provenance, stage_of
from implicit_tuning.reporting.page.sections import (
    Section,
    downloads,
    first_paragraph,
    links,
    marked_up,
    mean_rates,
    read_table,
    section,
)
from implicit_tuning.reporting.page.spent import duration, paid_calls
from implicit_tuning.reporting.tables.layout import MEAN
from implicit_tuning.reporting.usage import usage_by_stage

EXAMPLES = "examples"


@dataclass(frozen=True)
class Page:
    """The files that the report is made of: template, style and script."""

    template: Path
    style: Path
    script: Path


def build_report(
    destination: Path,
    nodes: Mapping[str, Path],
    page: Page,
    spending: Path,
    experiment: str,
    label: str,
    reference: str,
    evaluation: str,
    judge: str,
    headline: str,
    tables: Sequence[str],
) -> None:
    """Writes report.html.

    Args:
        nodes: folder of every node of the experiment by its name (stage/levels).
        spending: folder of the ledgers of paid endpoints.
        reference: the adaptation that every run was compared with.
        headline: the table of win rates that comes first.
        tables: the order of the others; those not named follow by name.

    Raises:
        BrokenArtifact: a node is not built.
        ValueError: the headline has no mean over seeds, or a ledger is damaged.
    """
    provenance = Provenance(nodes)
    names = _ordered(nodes, [headline, *tables])
    shown = [section(name, nodes, provenance, _figures_of(name, provenance)) for name in names]
    content = {
        "experiment": experiment,
        "label": label,
        "reference": reference,
        "evaluation": evaluation,
        "judge": judge,
        "headline": _headline(shown[0], nodes, provenance, reference),
        "sections": shown,
        "parts": links(shown),
        "examples": _examples(nodes, provenance, reference),
        "stages": provenance.by_stage(),
        "usage": usage_by_stage(nodes),
        "costs": paid_calls(provenance.manifests.values(), spending),
        "provenance": provenance.embedded(),
    }
    write_atomically(destination / "report.html", render(page, content))


def render(page: Page, content: Mapping[str, object]) -> str:
    """The template filled in, with everything escaped that is not markup of ours."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":")}
    environment.filters["duration"] = duration
    environment.filters["marked_up"] = marked_up
    script = page.script.read_text(encoding="utf-8")
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    template = environment.from_string(page.template.read_text(encoding="utf-8"))
    return template.render(
        content,
        style=Markup(page.style.read_text(encoding="utf-8")),
        script=Markup(script),
        script_sha256=allowed,
    )


def _ordered(nodes: Mapping[str, Path], first: Sequence[str]) -> list[str]:
    """Names of the tables that are shown as such, the given ones first."""
    names = sorted(name.removeprefix("table/") for name in nodes if stage_of(name) == "table")
    ordered = [name for name in dict.fromkeys([*first, *names]) if name in names]
    return [name for name in ordered if name != EXAMPLES]


def _figures_of(table: str, provenance: Provenance) -> list[str]:
    figures = [name for name in provenance.names if stage_of(name) == "figure"]
    drawn = [name for name in figures if f"table/{table}" in provenance.above(name).values()]
    return [name.removeprefix("figure/") for name in drawn]


def _headline(
    main: Section, nodes: Mapping[str, Path], provenance: Provenance, reference: str
) -> dict:
    node = f"table/{main.name}"
    frame = read_table(nodes[node] / "data" / f"{main.name}.csv")
    single = frame[frame["seed"] != MEAN]
    return {
        "bases": list(dict.fromkeys(frame["base"])),
        "rates": mean_rates(frame, node, provenance),
        "own_references": _own_references(frame, reference),
        "n_seeds": single["seed"].nunique(),
        # A mean counts each instruction once a seed.
        "n": int(single["n"].max()),
        "node": main.node,
    }


def _own_references(frame: pd.DataFrame, reference: str) -> dict[str, str]:
    """What each adaptation was compared with that was not compared with the reference."""
    if "against" not in frame:
        return {}
    pairs = frame[["adaptation", "against"]].dropna().itertuples(index=False)
    return {adaptation: against for adaptation, against in pairs if against != reference}


def _examples(nodes: Mapping[str, Path], provenance: Provenance, reference: str) -> dict | None:
    """What the browser of examples shows; None for an experiment without."""
    node = f"table/{EXAMPLES}"
    if node not in nodes:
        return None
    data = nodes[node] / "data"
    rows = list(read_rows(data / f"{EXAMPLES}.csv"))
    pairs = dict.fromkeys((row["base"], row["adaptation"]) for row in rows)
    origin_of = {
        (base, adaptation): " ".join(
            map(str, provenance.behind(node, {"base": base, "adaptation": adaptation}))
        )
        for base, adaptation in pairs
    }
    shown: list[Question] = questions(rows, reference, origin_of)
    return {
        "bases": list(dict.fromkeys(base for base, _ in pairs)),
        "adaptations": list(dict.fromkeys(adaptation for _, adaptation in pairs)),
        "questions": shown,
        "caption": marked_up(first_paragraph(data / f"{EXAMPLES}.md")),
        "downloads": downloads(data, "tables"),
        "node": provenance.number(node),
    }
