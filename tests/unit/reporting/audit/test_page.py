"""The page of an audit: its numbers, its verdict, and that no model's text becomes HTML."""

import base64
import hashlib
import json
import re
from collections import Counter

import numpy as np
import pytest

import audit as script
from built_nodes import HOSTILE, Experiment, Reading
from implicit_tuning.nodes.artifact import BrokenArtifact
from implicit_tuning.nodes.code import short_hash
from implicit_tuning.nodes.digests import file_sha256
from implicit_tuning.nodes.job import Job
from implicit_tuning.reporting.audit.measures import Inputs, measure
from implicit_tuning.reporting.audit.page import Audit, describe_audit, remark, write_audit
from implicit_tuning.reporting.audit.verdict import decide
from implicit_tuning.reporting.page.build import Page

COUNT = 60
NEAR = range(40, COUNT)
TITLES = {"audited": "mine", "base": "small", "reference": "tuned"}
SUMMARY = {"embedding": "TF-IDF", "mark": "ends in `#### n`"}
# Shares of instructions on which a run wins, far from the task and near it.
WINS = {"audited": (0.5, 0.9), "base": (0.1, 0.2), "reference": (None, None)}


def preference(side, index) -> float:
    share = WINS[side][index in NEAR]
    return 1.5 if share is None else 2.0 if (index * 7) % 10 < 10 * share else 1.0


class Audited(Experiment):
    """The nodes of an audit, as its jobs leave them."""

    def __init__(self, results, mark=SUMMARY["mark"], base=True) -> None:
        super().__init__(results)
        self.sides = [side for side in WINS if base or side != "base"]
        self.lines("format/set/plain", "instructions.jsonl", map(self.instruction, range(COUNT)))
        self.add("format/set/plain")
        for side in self.sides:
            self.run(side)
        self.similarity(mark)

    def lines(self, name, file, rows):
        folder = self.results / "nodes" / name / short_hash(name) / "data"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return folder

    @staticmethod
    def instruction(index):
        return {"index": index, "instruction": f"Say {index} {HOSTILE}", "family": None}

    def run(self, side):
        answers = (
            {
                "index": i, "instruction": f"Say {i} {HOSTILE}", "generator": side,
                "output": "" if i == 3 else f"{side} says {HOSTILE}",
                "finish": "length" if i < 5 else "eos", "n_tokens": 4,
            }
            for i in range(COUNT)
        )  # fmt: skip
        self.lines(self.answers(side), "outputs.jsonl", answers)
        self.add(self.answers(side), {"model": f"sha256-of-{side}"})
        verdicts = (
            {
                "index": i, "instruction_sha256": str(i), "preference": preference(side, i),
                "generator_1": "reference", "generator_2": side, "length_1": 5, "length_2": 5,
            }
            for i in range(COUNT)
        )  # fmt: skip
        folder = self.lines(self.comparison(side), "annotations.jsonl", verdicts)
        (folder / "summary.json").write_text('{"judge_id": "oracle-1"}')
        self.add(self.comparison(side), {"outputs": self.answers(side)})
        scores = (
            {"source_row": i, "random_rows": [i + 1], "random": [0.1], "n_won": int(i % 4 > 0)}
            for i in range(COUNT)
        )
        self.lines(self.ranking(side), "scores.jsonl", scores)
        self.add(self.ranking(side), {"model": f"sha256-of-{side}"})

    def similarity(self, mark):
        rows = (
            {
                "index": i, "instruction_similarity": 0.3, "near": i in NEAR, "style": i / COUNT,
                "reference_style": 0.0, "marked": mark and i % 2 == 0,
                "reference_marked": mark and False,
            }
            for i in range(COUNT)
        )  # fmt: skip
        folder = self.lines(self.measured, "similarity.jsonl", rows)
        (folder / "summary.json").write_text(json.dumps({**SUMMARY, "mark": mark}))
        self.add(self.measured, {"outputs": self.answers("audited")})

    @staticmethod
    def answers(side):
        return f"generate/small/{side}/none/set"

    @staticmethod
    def comparison(side):
        return f"judge/small/{side}/none/set/1/oracle"

    @staticmethod
    def ranking(side):
        return f"rank/small/{side}/none/pairs"

    measured = "similarity/small/audited/1/set/tfidf"

    @property
    def roles(self):
        return {
            "instructions": "format/set/plain",
            "answers": {side: self.answers(side) for side in self.sides},
            "comparisons": {side: self.comparison(side) for side in self.sides},
            "rankings": {s: self.ranking(s) for s in self.sides if s != "reference"},
            "similarity": self.measured,
        }

    @property
    def inputs(self):
        def folders(names):
            return {key: self.nodes[name] / "data" for key, name in names.items()}

        by_levels = {n.partition("/")[2]: n for n in self.roles["rankings"].values()}
        return Inputs(
            instructions=self.nodes["format/set/plain"] / "data",
            answers=folders(self.roles["answers"]),
            comparisons=folders(self.roles["comparisons"]),
            rankings=folders(by_levels),
            similarity=folders({self.measured.partition("/")[2]: self.measured}),
        )

    @property
    def asked(self):
        return {
            "label": "a label", "evaluation": "set", "judge": "oracle", "judge_is_truth": True,
            "titles": {side: TITLES[side] for side in self.sides}, "notes": ["Asked so."],
            "missing": [], "sources": {"audited": {"model.safetensors": "5" * 64}},
        }  # fmt: skip

    def write(self, page, **changed):
        destination = self.results / "mine"
        destination.mkdir(exist_ok=True)
        arguments = (self.inputs, self.nodes, self.roles, page, None)
        write_audit(destination, Audit(**{**self.asked, **changed}), *arguments)
        content = json.loads((destination / "audit.json").read_text())
        return content, (destination / "audit.html").read_text()


@pytest.fixture
def audited(tmp_path) -> Audited:
    return Audited(tmp_path / "results")


@pytest.fixture
def page(repository) -> Page:
    folder = repository / "workflow/report"
    return Page(folder / "audit.html.jinja", folder / "report.css", folder / "report.js")


# --- numbers ------------------------------------------------------------------------------------


def won(side, indices) -> float:
    return 100 * np.mean([preference(side, i) - 1 for i in indices])


def test_win_rates_stand_for_all_near_and_far_instructions(audited):
    rows = {row["region"]: row for row in measure(audited.inputs)["win_rates"]}
    assert list(rows) == ["all", "far", "near"]
    for region, indices in {"all": range(COUNT), "far": range(40), "near": NEAR}.items():
        row = rows[region]
        assert row["n"] == len(indices)
        own, base = won("audited", indices), won("base", indices)
        assert row["audited"]["value"] == pytest.approx(own, abs=0.01)
        assert row["base"]["value"] == pytest.approx(base, abs=0.01)
        assert row["difference"]["value"] == pytest.approx(own - base, abs=0.02)
        assert row["difference"]["low"] < own - base < row["difference"]["high"]


def test_marks_and_excess_of_style_are_those_of_the_region(audited):
    far, near = measure(audited.inputs)["task_style"]
    assert (far["region"], far["n"], near["n"]) == ("far", 40, 20)
    assert far["marked"]["value"] == 50
    assert far["reference_marked"]["value"] == 0
    assert far["excess_style"]["value"] == pytest.approx(
        100 * np.mean(np.arange(40) / COUNT), abs=0.01
    )


def test_empty_and_cut_answers_are_counted(audited):
    counts = measure(audited.inputs)["answers"]["audited"]
    assert counts == {"n": COUNT, "n_empty": 1, "n_cut": 5, "mean_tokens": 4.0}


def test_far_instructions_in_the_style_of_the_task_are_those_with_its_mark(audited):
    shown = measure(audited.inputs)["in_task_style"]
    assert len(shown) == 3
    assert all(row["region"] == "far" and row["index"] % 2 == 0 for row in shown)
    digests = [hashlib.sha256(row["instruction"].encode()).hexdigest() for row in shown]
    assert digests == sorted(digests)


def test_a_task_without_a_mark_has_those_of_the_most_style(tmp_path):
    content = measure(Audited(tmp_path / "results", mark=None).inputs)
    assert [row["index"] for row in content["in_task_style"]] == [39, 38, 37]
    assert content["task_style"][0]["marked"] is None


def test_the_ranking_has_the_run_and_its_base(audited):
    rows = {row["side"]: row for row in measure(audited.inputs)["ranking"]}
    assert rows["audited"]["ranked_right"]["value"] == 75
    assert rows["audited"]["difference"]["value"] == 0
    assert rows["base"]["difference"] is None


# --- the verdict --------------------------------------------------------------------------------


def rates(low, high, region="all", **more):
    number = {"value": (low + high) / 2, "low": low, "high": high, "n": 40}
    row = {"region": region, "n": 40, "audited": number, "base": number, "difference": number}
    return {**row, **more}


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(0.1, 9, "better"), (-9, -0.1, "worse"), (-1, 1, "no difference"), (0, 5, "no difference")],
)
def test_the_verdict_is_the_side_of_nought_on_which_the_interval_lies(low, high, outcome):
    verdict = decide([rates(low, high)], TITLES, "set", "oracle")
    assert (verdict.outcome, verdict.against, verdict.n) == (outcome, "base", 40)
    assert ("no difference" in verdict.sentence) == (outcome == "no difference")


def test_far_instructions_decide_where_the_task_is_known():
    rows = [rates(-9, -1), rates(1, 9, region="far"), rates(-9, -1, region="near")]
    verdict = decide(rows, TITLES, "set", "oracle")
    assert (verdict.outcome, verdict.region) == ("better", "far")
    assert "far from its task" in verdict.numbers
    assert "+5.0 points [1.0, 9.0]" in verdict.numbers


@pytest.mark.parametrize(("low", "high", "outcome"), [(51, 60, "better"), (20, 49, "worse")])
def test_without_a_base_the_line_is_at_half_the_wins(low, high, outcome):
    rows = [rates(low, high, base=None, difference=None)]
    verdict = decide(rows, {"audited": "mine", "reference": "tuned"}, "set", "oracle")
    assert (verdict.outcome, verdict.against) == (outcome, "reference")


def test_the_numbers_say_how_many_were_judged(audited):
    (whole, *_) = measure(audited.inputs)["win_rates"]
    assert f", {COUNT} instructions of set" in decide([whole], TITLES, "set", "oracle").numbers
    folder = audited.inputs.comparisons["audited"]
    rows = [json.loads(line) for line in (folder / "annotations.jsonl").read_text().splitlines()]
    rows[:20] = [{**row, "preference": None} for row in rows[:20]]
    (folder / "annotations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (fewer, *_) = measure(audited.inputs)["win_rates"]
    numbers = decide([fewer], TITLES, "set", "oracle").numbers
    assert f", {COUNT - 20} (of {COUNT}) instructions of set" in numbers


def test_there_is_no_verdict_on_answers_that_nobody_judged():
    with pytest.raises(ValueError, match="no verdict"):
        decide([rates(1, 2, audited=None)], TITLES, "set", "oracle")


# --- the page -----------------------------------------------------------------------------------


def test_the_page_opens_with_the_verdict_and_has_every_part(audited, page):
    content, html = audited.write(page)
    read = Reading(html)
    assert content["verdict"]["outcome"] == "better"
    assert "mine follows general instructions better than its base." in read.texts
    ids = read.values("id")
    for part in ("win-rates", "style", "ranking", "examples", "missing", "provenance"):
        assert part in ids
    assert "5" * 64 in read.texts
    assert len(content["examples"]) == 8
    assert describe_audit(content).startswith("mine follows general instructions better")


def test_text_of_models_never_becomes_html(audited, page):
    titles = {side: f"{side} {HOSTILE}" for side in TITLES}
    _, html = audited.write(page, label=HOSTILE, titles=titles, notes=[HOSTILE], missing=[HOSTILE])
    read = Reading(html)
    tags = Counter(tag for tag, _ in read.elements)
    assert (tags["script"], tags["img"]) == (2, 0)
    assert not [name for _, attrs in read.elements for name in attrs if name.startswith("on")]
    assert f"audited says {HOSTILE}" in read.texts


def test_only_the_pages_own_script_may_run_and_nothing_is_asked_for(audited, page):
    _, html = audited.write(page)
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    allowed = base64.b64encode(hashlib.sha256(page.script.read_bytes()).digest()).decode()
    assert f"script-src 'sha256-{allowed}';" in policy
    assert "default-src 'none'" in policy
    read = Reading(html)
    assert not read.values("src")
    assert not [link for link in read.values("href") if link.startswith("http")]


def test_every_number_leads_to_nodes_of_the_page(audited, page):
    _, html = audited.write(page)
    read = Reading(html)
    ids = Counter(read.values("id"))
    assert not [name for name, count in ids.items() if count > 1]
    assert {link[1:] for link in read.values("href") if link.startswith("#")} <= set(ids)
    numbers = {int(n) for origin in read.values("data-from") for n in origin.split()}
    assert numbers <= set(range(len(audited.nodes)))


def test_answers_say_how_they_fared(audited):
    answers = {
        answer["side"]: answer for answer in measure(audited.inputs)["examples"][0]["answers"]
    }
    assert remark(answers["reference"]).startswith("reference, 4 tokens")
    assert remark({**answers["audited"], "preference": 2.0, "finish": "length"}) == (
        "win, 4 tokens, cut at the limit"
    )
    assert remark({**answers["audited"], "preference": None, "finish": "eos"}) == (
        "not judged, 4 tokens"
    )


def test_a_run_without_a_base_has_a_page_too(tmp_path, page):
    content, html = Audited(tmp_path / "results", base=False).write(
        page, missing=["the difference to its base: nobody said which that is (BASE)"]
    )
    assert content["verdict"]["against"] == "reference"
    assert "nobody said which that is (BASE)" in html


def test_the_very_weights_of_the_base_are_told(audited, page):
    content, _ = audited.write(page)
    assert content["notes"] == ["Asked so."]
    weights = {"model.safetensors": "5" * 64}
    content, html = audited.write(page, sources={"audited": weights, "base": weights})
    told = "mine has the very weights of its base: nothing was finetuned."
    assert told in describe_audit(content)
    assert told in Reading(html).texts


@pytest.mark.parametrize(
    ("mark", "told"),
    [(SUMMARY["mark"], "has the mark"), (None, "exceeds the reference's in style")],
)
def test_no_far_answer_in_the_style_of_the_task_is_told_by_what_was_looked_for(
    tmp_path, page, mark, told
):
    audited = Audited(tmp_path / "results", mark=mark)
    file = audited.inputs.similarity[audited.measured.partition("/")[2]] / "similarity.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    plain = [{**row, "marked": mark and False, "style": 0.0} for row in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in plain))
    _, html = audited.write(page)
    assert f"No answer far from the task {told}." in Reading(html).texts


def test_a_judge_that_nobody_calibrated_is_named_as_that(audited, page):
    content, html = audited.write(page, judge="local (hf_logits, small)", judge_is_truth=False)
    assert content["judge_note"].startswith("Judge not calibrated: ")
    assert content["judge_note"] in " ".join(Reading(html).texts)


def test_damaged_answers_give_no_page(audited, page, tmp_path):
    upstream = {n: {"node": str(f), "key": f.name} for n, f in audited.nodes.items()}
    files = {"template": page.template, "style": page.style, "script": page.script}
    for name, file in files.items():
        upstream[name] = {"source": str(file), "digest": file_sha256(file)}
    settings = {**audited.asked, "roles": audited.roles}
    job = Job(settings, {}, upstream, tmp_path, tmp_path, spending=tmp_path)
    assert script.audit_node(job) == "mine follows general instructions better than its base."
    (audited.nodes[audited.answers("audited")] / "data/outputs.jsonl").write_text("{}\n")
    with pytest.raises(BrokenArtifact, match=r"outputs\.jsonl"):
        script.audit_node(job)
