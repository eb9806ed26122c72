"""The report: nothing of a model's text becomes HTML, every number finds its nodes, and it is small."""

import base64
import hashlib
import json
import re
import time
from collections import Counter

import pandas as pd
import pytest
from matplotlib.figure import Figure

import report
from built_nodes import HOSTILE, Experiment, Reading
from implicit_tuning.nodes.artifact import BrokenArtifact
from implicit_tuning.nodes.digests import file_sha256
from implicit_tuning.nodes.job import Job
from implicit_tuning.reporting.figures.style import finish
from implicit_tuning.reporting.page.build import Page, build_report
from implicit_tuning.reporting.page.examples import changes, questions
from implicit_tuning.reporting.page.inline_svg import drawing
from implicit_tuning.reporting.page.provenance import Provenance
from implicit_tuning.reporting.page.sections import downloads, marked_up
from implicit_tuning.reporting.page.spent import Cost, duration, paid_calls
from implicit_tuning.reporting.tables.layout import Table

BASES, SEEDS = ("small", "big"), ("1", "2")
ADAPTATIONS = ("base", "instruction", "response")
SETTINGS = {
    "experiment": "mine",
    "label": "model organism, by construction",
    "reference": "instruction",
    "evaluation": "questions",
    "judge": "oracle",
    "headline": "main",
    "tables": ["loss"],
}


def run_of(experiment, base, adaptation, seed, output="an answer", facts=None) -> None:
    """The nodes of one run: finetune (unless it is the base itself), generate, judge."""
    own = "none" if adaptation == "base" else seed
    generation = f"generate/{base}/{adaptation}/{own}/questions"
    model = f"sha256-of-{base}"
    if own != "none":
        model = f"finetune/{base}/{adaptation}/{seed}"
        experiment.add(model, {"base": f"sha256-of-{base}"}, {"training": {"epochs": 2}})
    experiment.add(generation, {"model": model}, {"generation": {"batch_size": 4}})
    experiment.add(
        f"judge/{base}/{adaptation}/{own}/questions/{seed}/oracle",
        {"outputs": generation, "references": generation},
        {"judge": {"kind": "oracle"}},
        {"judge_id": "oracle-1", **(facts or {})},
    )


def rates(bases, adaptations, seeds) -> pd.DataFrame:
    rows = [
        {
            "base": base, "adaptation": adaptation, "seed": seed,
            "win_rate": 40.0, "win_rate_std": 1.0 if seed == "mean" else None,
            "win_rate_low": 35.0, "win_rate_high": 45.5, "n": 16 if seed != "mean" else 32,
            "note": HOSTILE,
        }
        for base in bases for adaptation in adaptations for seed in (*seeds, "mean")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def answers(bases, adaptations) -> pd.DataFrame:
    rows = [
        {
            "base": base, "adaptation": adaptation, "index": 3, "instruction": f"Say {HOSTILE}",
            "output": f"{adaptation} says {HOSTILE}", "finish": "length", "n_tokens": 7,
            "verdict": "win",
        }
        for base in bases for adaptation in adaptations
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def experiment(tmp_path) -> Experiment:
    experiment = Experiment(tmp_path / "results")
    for base in BASES:
        for adaptation in ADAPTATIONS:
            for seed in SEEDS:
                run_of(experiment, base, adaptation, seed, facts={"said": HOSTILE})
    frame = rates(BASES, ADAPTATIONS, SEEDS)
    main = Table(frame, f"**Label.** Rates in `%` {HOSTILE}")
    experiment.table("main", main, experiment.named("judge"))
    experiment.table("loss", Table(frame, "Losses."), experiment.named("finetune"))
    examples = Table(answers(BASES, ADAPTATIONS), "Chosen by rule.", markdown="as a list")
    with_stage = {name: name for name in experiment.nodes if name.startswith(("judge", "generate"))}
    experiment.table("examples", examples, with_stage)
    experiment.figure("main")
    experiment.figure("loss")
    return experiment


@pytest.fixture
def page(repository) -> Page:
    folder = repository / "workflow/report"
    return Page(folder / "report.html.jinja", folder / "report.css", folder / "report.js")


def build(experiment, page, **changed) -> str:
    destination = experiment.results / "mine"
    destination.mkdir(exist_ok=True)
    spending = experiment.results / "cache/spending"
    build_report(destination, experiment.nodes, page, spending, **{**SETTINGS, **changed})
    return (destination / "report.html").read_text(encoding="utf-8")


# --- safety -------------------------------------------------------------------------------------


def test_text_of_models_and_configs_never_becomes_html(experiment, page):
    read = Reading(build(experiment, page, label=HOSTILE))
    tags = Counter(tag for tag, _ in read.elements)
    assert (tags["script"], tags["img"]) == (2, 0)
    assert not [name for _, attrs in read.elements for name in attrs if name.startswith("on")]
    assert read.texts.count(f"response says {HOSTILE}") == len(BASES)
    assert f"Say {HOSTILE}" in read.texts
    assert HOSTILE in read.texts  # the label
    assert f" {HOSTILE}" in "".join(read.texts)  # the caption


def test_only_the_pages_own_script_may_run_and_nothing_is_asked_for(experiment, page):
    html = build(experiment, page)
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    script = page.script.read_text().encode()
    allowed = base64.b64encode(hashlib.sha256(script).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{allowed}';" in policy
    assert f"<script>{script.decode()}</script>" in html
    read = Reading(html)
    assert not read.values("src")
    addresses = [link for link in read.values("href") if link.startswith("http")]
    assert addresses == ["https://arxiv.org/abs/2409.14254"]


def test_ids_are_unique_and_every_reference_to_one_resolves(experiment, page):
    read = Reading(build(experiment, page))
    ids = Counter(read.values("id"))
    assert [name for name, count in ids.items() if count > 1] == []
    links = [link[1:] for link in read.values("href") if link.startswith("#")]
    links += [link[1:] for link in read.values("xlink:href")]
    links += re.findall(r"url\(#([^)]+)\)", " ".join(read.values("clip-path")))
    assert any(link.startswith("figure-main-") for link in links)
    assert set(links) <= set(ids)


def test_captions_keep_their_emphasis_and_nothing_else():
    assert marked_up("**Bold & b.** a `x < y` <i>no</i> 2 * 3 ** 4") == (
        "<strong>Bold &amp; b.</strong> a <code>x &lt; y</code> &lt;i&gt;no&lt;/i&gt; 2 * 3 ** 4"
    )


# --- provenance ---------------------------------------------------------------------------------


def names_behind(experiment, table, **row) -> list[str]:
    provenance = Provenance(experiment.nodes)
    return [provenance.names[number] for number in provenance.behind(f"table/{table}", row)]


def test_a_mean_comes_from_all_its_seeds_and_from_no_other_run(experiment):
    assert names_behind(experiment, "main", base="big", adaptation="response", seed="mean") == [
        "table/main",
        "judge/big/response/1/questions/1/oracle",
        "judge/big/response/2/questions/2/oracle",
    ]


def test_a_seed_comes_from_its_own_run_also_where_the_model_has_none(experiment):
    assert names_behind(experiment, "main", base="big", adaptation="response", seed="2")[1:] == [
        "judge/big/response/2/questions/2/oracle"
    ]
    assert names_behind(experiment, "main", base="big", adaptation="base", seed=2)[1:] == [
        "judge/big/base/none/questions/2/oracle"
    ]


def test_a_difference_comes_from_its_baseline_too(experiment):
    experiment.table(
        "ablation",
        Table(rates(["big"], ["response"], ["1"]), "c"),
        experiment.named("judge"),
        {"baseline": "base"},
    )
    found = names_behind(experiment, "ablation", base="big", adaptation="response")
    assert {name.split("/")[2] for name in found[1:]} == {"base", "response"}
    assert {name.split("/")[1] for name in found[1:]} == {"big"}


def test_a_claim_comes_from_the_two_adaptations_that_it_compares(experiment):
    claims = rates(["big"], ["response"], ["1"])
    experiment.table("claims", Table(claims, "c"), experiment.named("judge"), {})
    row = {"base": "big", "adaptation": "response", "compared_with": "base"}
    found = names_behind(experiment, "claims", **row)
    assert {name.split("/")[2] for name in found[1:]} == {"base", "response"}


@pytest.mark.parametrize(
    ("others", "behind"), [({}, [10]), ({"compared_with_epochs": 5.0}, [10, 5])]
)
def test_a_row_of_a_sweep_comes_from_its_epochs_and_the_runner_up(experiment, others, behind):
    for epochs in (5, 10, 20):
        run_of(experiment, "big", f"response.{epochs}-epochs", "1")
    swept = {name: name for name in experiment.nodes if "-epochs" in name and "judge" in name}
    sweep = {f"response.{epochs}-epochs": ["response", epochs] for epochs in (5, 10, 20)}
    frame = rates(["big"], ["response"], [])
    experiment.table("epochs", Table(frame, "c"), swept, {"sweep": sweep})
    found = names_behind(
        experiment, "epochs", base="big", adaptation="response", epochs=10, **others
    )
    assert found[1:] == [f"judge/big/response.{n}-epochs/1/questions/1/oracle" for n in behind]


def test_a_role_is_left_out_only_where_it_is_the_nodes_name(experiment):
    experiment.add("format/d/plain-8-rows")
    experiment.add(
        "finetune/big/few/1",
        {"rows": "format/d/plain-8-rows", "d/plain-8-rows": "format/d/plain-8-rows"},
    )
    entries = {node["name"]: node for node in Provenance(experiment.nodes).embedded()["nodes"]}
    assert [role for _, role in entries["finetune/big/few/1"]["above"]] == ["", "rows"]


def test_a_row_without_levels_comes_from_all_that_its_table_reads(experiment):
    assert len(names_behind(experiment, "main")) == 1 + len(experiment.named("judge"))


def test_what_the_page_says_of_a_node_is_its_manifest_without_modules(experiment, page):
    read = Reading(build(experiment, page))
    embedded = json.loads(next(text for text in read.texts if text.startswith('{"nodes"')))
    provenance = Provenance(experiment.nodes)
    number = provenance.number("generate/big/response/2/questions")
    node = embedded["nodes"][number]
    manifest = provenance.manifests[node["name"]]
    assert (node["key"], node["digest"]) == (manifest["key"], manifest["digest"])
    assert embedded["shared"][node["settings"]] == manifest["settings"]
    assert embedded["shared"][node["code"]] == {
        "fingerprint": manifest["code"]["fingerprint"],
        "versions": manifest["code"]["versions"],
    }
    assert node["above"] == [[provenance.number("finetune/big/response/2"), "model"]]
    link = experiment.results / "mine" / provenance.link(node["name"])
    assert json.loads(link.read_text())["key"] == node["key"]
    judged = embedded["nodes"][provenance.number("judge/big/response/2/questions/2/oracle")]
    assert judged["facts"]["said"] == HOSTILE


def test_long_facts_stay_in_the_manifest(experiment):
    experiment.add("format/d/plain", facts={"rows": list(range(1000))})
    [entry] = [
        node
        for node in Provenance(experiment.nodes).embedded()["nodes"]
        if node["name"] == "format/d/plain"
    ]
    assert list(entry["facts"]) == [""]
    assert "manifest" in entry["facts"][""]


def test_a_damaged_manifest_is_named(experiment, page):
    manifest = experiment.nodes["judge/big/base/none/questions/1/oracle"] / "manifest.json"
    manifest.write_text(manifest.read_text().replace("oracle-1", "oracle-2"))
    with pytest.raises(BrokenArtifact, match="judge/big/base.*make repair"):
        build(experiment, page)


# --- content ------------------------------------------------------------------------------------


def test_the_headline_has_each_mean_with_its_interval(experiment, page):
    html = build(experiment, page)
    part = html[html.index('<section id="headline"') : html.index('<section id="table-main"')]
    assert part.count("40.0 ± 1.0") == len(BASES) * len(ADAPTATIONS)
    assert part.count("[35.0, 45.5]") == len(BASES) * len(ADAPTATIONS)
    text = " ".join("".join(Reading(html).texts).split())
    assert "2 pretrained bases, 3 adaptations, 2 seeds. Each adapted model answers 16" in text
    assert (
        "with those of the run instruction of the same base and seed by the judge oracle." in text
    )


def test_one_of_each_reads_right(experiment, page):
    frame = rates(["big"], ["instruction"], ["1"])
    frame["n"] = 1
    experiment.table("main", Table(frame, "c"), experiment.named("judge"))
    text = " ".join("".join(Reading(build(experiment, page)).texts).split())
    assert "1 pretrained base, 1 adaptation, 1 seed. Each adapted model answers 1 instruct" in text
    assert "the run instruction of the same base by the judge" in text
    assert "Headline: win rates" in text
    assert "over seeds" not in text


def test_rows_with_a_reference_of_their_own_are_marked(experiment, page):
    frame = rates(BASES, ADAPTATIONS, SEEDS)
    frame["against"] = [
        "base" if name == "response" else "instruction" for name in frame.adaptation
    ]
    experiment.table("main", Table(frame, "c"), experiment.named("judge"))
    html = build(experiment, page)
    part = html[html.index('<section id="headline"') : html.index('<section id="table-main"')]
    heads = re.findall(r'<th scope="row">(.*)</th>', part)
    assert [re.sub("<[^>]+>", "", head) for head in heads] == [
        "base", "instruction reference", "response against base",
    ]  # fmt: skip
    text = " ".join("".join(Reading(html).texts).split())
    assert "by the judge oracle, but those of response with those of base. After" in text
    assert "the answer of instruction (or of the run named beside it)" in text


def test_what_all_rows_say_is_said_once_below_them(experiment, page):
    frame = rates(["big"], ["base", "response"], [])
    frame["n"] = 5
    frame["judge"] = "oracle"
    experiment.table("claims", Table(frame, "c"), {})
    html = build(experiment, page)
    columns, notes = shown_columns(html, "claims")
    assert f"In all rows: base big; seed mean; note {HOSTILE}; judge oracle." in notes
    assert columns == ["adaptation", "win rate", "n"]


def shown_columns(html, table) -> tuple[list[str], str]:
    """Heads of a table's columns, and all texts of its section."""
    start = html.index(f'<section id="table-{table}"')
    part = html[start : html.index("</section>", start)]
    heads = re.findall(r'<th scope="col">([^<]*)</th>', part)
    return heads, " ".join("".join(Reading(part).texts).split())


def test_what_some_rows_go_on_to_say_is_said_once_below_them(experiment, page):
    frame = rates(["big"], ["base", "instruction", "response"], [])
    frame["note"] = [
        "too few; the judge is young; `x` is small",
        None,
        "the judge is young; `x` is small",
    ]
    experiment.table("claims", Table(frame, "c"), {})
    html = build(experiment, page)
    assert re.findall(r"<td>(too few|-|see below)</td>", html) == ["too few", "-", "see below"]
    assert (
        "All rows with a note also say: the judge is young; x is small."
        in (shown_columns(html, "claims")[1])
    )


def test_notes_that_are_all_alike_stay_in_their_rows(experiment, page):
    frame = rates(["big"], ["base", "instruction", "response"], [])
    frame["note"] = ["within chance", None, "within chance"]
    experiment.table("claims", Table(frame, "c"), {})
    assert build(experiment, page).count("<td>within chance</td>") == 2


def test_helper_columns_that_say_one_thing_are_left_to_the_caption(experiment, page):
    frame = rates(["big"], ["base", "instruction", "response"], [])
    frame["compared_with"] = [None, "base", "base"]
    frame["n_comparisons"] = pd.array([None, 2, 2], dtype="Int64")
    experiment.table("claims", Table(frame, "c"), {})
    columns, _ = shown_columns(build(experiment, page), "claims")
    assert columns == ["adaptation", "win rate", "n"]
    frame["compared_with"] = [None, "base", "instruction"]
    experiment.table("claims", Table(frame, "c"), {})
    columns, _ = shown_columns(build(experiment, page), "claims")
    assert columns == ["adaptation", "win rate", "n", "compared with"]


def test_bases_head_their_rows_where_these_stand_together(experiment, page):
    frame = rates(BASES, ["base", "response"], [])
    experiment.table("claims", Table(frame, "c"), {})
    html = build(experiment, page)
    columns, texts = shown_columns(html, "claims")
    assert columns == ["adaptation", "win rate", "n"]
    assert re.search("small base.* response.* big base.* response", texts)
    assert 'data-of="big · response · mean"' in html
    experiment.table("claims", Table(frame.iloc[[0, 2, 1, 3]], "c"), {})
    assert shown_columns(build(experiment, page), "claims")[0][0] == "base"


def test_ablations_are_one_entry_of_the_line_of_links(experiment, page):
    for name in ("ablation-eos", "ablation-tags"):
        experiment.table(name, Table(rates(["big"], ["response"], []), "c"), {})
    html = build(experiment, page)
    line = html[html.index("<nav") : html.index("</nav>")]
    assert re.findall("<a[^>]*>(.*)</a>", line) == [
        "Headline", "Win rates", "Loss", "Ablations", "Examples", "Time and cost", "Provenance",
    ]  # fmt: skip


def test_a_headline_without_means_is_refused(experiment, page):
    frame = rates(BASES, ADAPTATIONS, SEEDS)
    experiment.table("main", Table(frame[frame["seed"] != "mean"], "c"), {})
    with pytest.raises(ValueError, match="table/main has no row whose seed is 'mean'"):
        build(experiment, page)


def test_tables_follow_the_given_order_and_none_is_lost(experiment, page):
    for name in ("ablation-eos", "claims"):
        experiment.table(name, Table(rates(["big"], ["response"], []), "c"), {})
    read = Reading(build(experiment, page, tables=["claims", "absent"]))
    sections = [attrs["id"] for tag, attrs in read.elements if tag == "section"]
    assert sections == [
        "headline", "table-main", "table-claims", "table-ablation-eos", "table-loss", "examples",
        "cost", "provenance",
    ]  # fmt: skip


def test_every_csv_of_tables_and_figures_can_be_kept(experiment, page):
    read = Reading(build(experiment, page))
    kept = {
        (attrs["download"], base64.b64decode(attrs["href"].partition("base64,")[2]))
        for _, attrs in read.elements
        if "download" in attrs
    }
    files = (experiment.results / "nodes").glob("*/*/*/data/*.csv")
    assert kept == {(file.name, file.read_bytes()) for file in files}


def test_a_large_file_is_linked_where_the_experiment_has_it(tmp_path):
    (tmp_path / "big.csv").write_text("x\n" * 100_000)
    [download] = downloads(tmp_path, "tables")
    assert (download.name, download.link) == ("big.csv", "tables/big.csv")


def test_a_long_table_is_for_download_only(experiment, page):
    seeds = [str(seed) for seed in range(100)]
    experiment.table("loss", Table(rates(BASES, ADAPTATIONS, seeds), "c"), {})
    html = build(experiment, page)
    assert "The table has 606 rows: it is for download only." in html


def test_a_table_without_rows_says_so(experiment, page):
    frame = pd.DataFrame(columns=["base", "win_rate", "win_rate_low", "win_rate_high", "n"])
    experiment.table("claims", Table(frame, "No base has a counterpart."), {})
    html = build(experiment, page)
    assert html.count("The table has no rows.") == 1
    assert "No base has a counterpart." in html


@pytest.mark.parametrize(
    ("reference", "output"),
    [
        ("a cat sat here", "a dog sat"),
        ("", "something new"),
        ("all\n  of it", ""),
        ("one two  three\nfour", "one  two three\nfive four"),
    ],
)
def test_a_diff_holds_both_texts_to_the_last_space(reference, output):
    pieces = changes(reference, output)
    assert "".join(text for kind, text in pieces if kind != "del") == output
    assert "".join(text for kind, text in pieces if kind != "ins") == reference


def test_a_diff_marks_words():
    assert changes("a cat sat here", "a dog sat here") == [
        ("same", "a "), ("del", "cat"), ("ins", "dog"), ("same", " sat here"),
    ]  # fmt: skip


def test_the_reference_has_no_diff_and_empty_answers_are_said(experiment, page):
    frame = answers(["big"], ADAPTATIONS)
    frame.loc[frame["adaptation"] == "base", "output"] = ""
    upstream = {name: name for name in experiment.nodes if name.startswith("generate")}
    experiment.table("examples", Table(frame, "c", markdown="m"), upstream)
    read = Reading(build(experiment, page))
    assert [attrs.get("class") for tag, attrs in read.elements if tag == "dd"] == [
        "comparable", None, "comparable",
    ]  # fmt: skip
    assert "(empty)" in read.texts
    assert "reference, 7 tokens, cut at the limit" in read.texts


def test_an_answer_is_diffed_against_what_its_run_was_compared_with():
    def row(adaptation, output, against):
        about = {"base": "big", "index": "3", "instruction": "Say it", "finish": "eos"}
        about |= {"n_tokens": "2", "verdict": "tie"}
        return {**about, "adaptation": adaptation, "output": output, "against": against}

    rows = [
        row("instruction", "a cat", "instruction"),
        row("response", "a dog", "instruction"),
        row("other-tags", "a dog", "response"),
        row("orphan", "a dog", "absent"),
    ]
    origins = {("big", each["adaptation"]): "0" for each in rows}
    [question] = questions(rows, "instruction", origins)
    assert [answer.changes for answer in question.answers] == [
        None, changes("a cat", "a dog"), [("same", "a dog")], None,
    ]  # fmt: skip
    assert [answer.remarks for answer in question.answers] == [
        "reference, 2 tokens", "ties, 2 tokens", "ties against response, 2 tokens",
        "ties against absent, 2 tokens",
    ]  # fmt: skip


def test_a_drawing_that_would_be_too_large_is_its_bitmap(tmp_path, monkeypatch):
    figure = Figure()
    figure.subplots().plot(range(10))
    finish(figure, tmp_path, "f", "")
    monkeypatch.setattr("implicit_tuning.reporting.page.inline_svg.LARGEST_SVG", 1000)
    markup = drawing(tmp_path / "f.svg", "p", "A <title>", "text")
    encoded = base64.b64encode((tmp_path / "f.png").read_bytes()).decode()
    expected = f'<img src="data:image/png;base64,{encoded}" alt="A &lt;title&gt;. text">'
    assert markup == expected


def test_colors_of_ink_and_paper_follow_the_page(experiment, page):
    html = build(experiment, page)
    drawn = html[html.index("<figure>") : html.index("</figure>")]
    assert "fill: var(--paper)" in drawn
    assert "stroke: var(--ink)" in drawn
    assert not re.search(r"#000000|#ffffff|<style", drawn)


# --- time and cost ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(8.24, "8.2 s"), (59.94, "59.9 s"), (185, "3 min 05 s"), (7625, "2 h 07 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_paid_judges_cost_what_their_ledgers_say(tmp_path):
    paid, free = {"judge": {"kind": "openai"}}, {"judge": {"kind": "oracle"}}
    manifests = [
        {"settings": paid, "facts": {"judge_id": "j1"}},
        {"settings": paid, "facts": {"judge_id": "j2"}},
        {"settings": free, "facts": {"judge_id": "oracle"}},
        {"settings": {"rewriter": {"kind": "openai"}}, "facts": {"rewriter_id": "r"}},
    ]
    (tmp_path / "j1.json").write_text('{"open": {}, "spent_usd": 12.25}')
    (tmp_path / "r.json").write_text('{"open": {}, "spent_usd": 0.5}')
    assert paid_calls(manifests, tmp_path) == [Cost("j1", 12.25), Cost("j2", None), Cost("r", 0.5)]
    (tmp_path / "j2.json").write_text("{}")
    with pytest.raises(ValueError, match="j2.json is damaged.*spent_usd"):
        paid_calls(manifests, tmp_path)


def test_measured_jobs_are_summed_up(experiment, page):
    assert "Money: no paid calls." in build(experiment, page)
    for name in experiment.named("finetune").values():
        columns = "s\tcpu_time\tmax_rss\n90.0\t60.0\t1024.0\n"
        (experiment.nodes[name] / "benchmark.tsv").write_text(columns)
    html = build(experiment, page)
    row = re.search(r'<th scope="row">finetune</th>.*', html)[0]
    assert re.findall(r">([^<>]+)</td>", row) == [
        "8", "8", "12 min 00 s", "1 min 30 s", "8 min 00 s", "1024 MB",
    ]  # fmt: skip


# --- the whole ----------------------------------------------------------------------------------


def test_equal_nodes_give_equal_bytes(experiment, page):
    assert build(experiment, page) == build(experiment, page)


def test_the_paper_sized_grid_stays_small(tmp_path, page):
    experiment = Experiment(tmp_path / "results")
    adaptations = ["base", "instruction", *(f"adaptation-{n}" for n in range(38))]
    seeds = [str(seed) for seed in range(1, 6)]
    for base in BASES:
        for adaptation in adaptations:
            for seed in seeds:
                run_of(experiment, base, adaptation, seed, facts={"why": "x" * 400})
    frame = rates(BASES, adaptations, seeds)
    experiment.table("main", Table(frame, "c"), experiment.named("judge"))
    experiment.figure("main")
    shown = answers(BASES, adaptations)
    texts = [f"{row} " + "some words of it. " * 60 for row in range(len(shown))]
    eight = [shown.assign(index=i, instruction=f"Say {i}", output=texts) for i in range(8)]
    examples = Table(pd.concat(eight), "c", markdown="m")
    experiment.table("examples", examples, {n: n for n in experiment.nodes if "judge/" in n})
    started = time.perf_counter()
    html = build(experiment, page)
    size = len(html.encode())
    print(f"{len(experiment.nodes)} nodes: {size} bytes, {time.perf_counter() - started:.1f} s")
    assert len(experiment.nodes) > 1150
    assert size < 5_000_000


def test_the_job_reads_tables_whole_and_refuses_damaged_ones(experiment, page, tmp_path):
    files = {"template": page.template, "style": page.style, "script": page.script}
    upstream = {name: {"node": str(folder)} for name, folder in experiment.nodes.items()}
    upstream |= {
        name: {"source": str(path), "digest": file_sha256(path)} for name, path in files.items()
    }
    spending = experiment.results / "cache/spending"
    job = Job(SETTINGS, {}, upstream, data=tmp_path, partial=tmp_path, spending=spending)
    report.report_node(job)
    assert (tmp_path / "report.html").read_text() == build(experiment, page)
    table = experiment.nodes["table/main"] / "data/main.csv"
    table.write_text(table.read_text().replace("40.00", "41.00"))
    with pytest.raises(BrokenArtifact, match="main.csv has other bytes"):
        report.report_node(job)
