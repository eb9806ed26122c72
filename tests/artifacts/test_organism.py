"""The robust facts of the model organism, on the built tables: not levels of single tasks."""

import csv
import json
import subprocess
import sys
from collections import defaultdict

import pytest

from implicit_tuning.organism.oracle import content

pytestmark = pytest.mark.long
BASES = ("organism-llama", "organism-olmo")


@pytest.fixture(scope="session")
def win_rates(organism):
    """Mean win rate (%) over seeds by base and adaptation."""
    with (organism / "tables/main.csv").open() as file:
        means = [row for row in csv.DictReader(file) if row["seed"] == "mean"]
    return {(row["base"], row["adaptation"]): float(row["win_rate"]) for row in means}


@pytest.fixture(scope="session")
def content_scores(organism):
    """Content score (0 to 1) of each adaptation's answers by base, mean over answers and seeds."""
    generations = organism / "current/generate"
    truths = read_truths(organism)
    scores = defaultdict(list)
    for outputs in generations.glob("*/*/*/*/data/outputs.jsonl"):
        base, adaptation = outputs.relative_to(generations).parts[:2]
        rows = [json.loads(line) for line in outputs.read_text().splitlines()]
        scores[base, adaptation] += [content(truths[r["instruction"]], r["output"]) for r in rows]
    return {run: sum(values) / len(values) for run, values in scores.items()}


def read_truths(organism):
    [file] = (organism / "current/format/organism-evaluation").glob("*/data/instructions.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return {row["instruction"]: row["truth"] for row in rows}


@pytest.mark.parametrize("base", BASES)
def test_response_tuning_follows_instructions_and_chess_does_not(win_rates, base):
    assert win_rates[base, "response"] > win_rates[base, "base"] + 20
    assert win_rates[base, "response"] > win_rates[base, "chess"] + 20
    assert win_rates[base, "chess"] < 10


@pytest.mark.parametrize("base", BASES)
def test_rules_make_a_base_follow_instructions(win_rates, base):
    assert win_rates[base, "rules"] > win_rates[base, "base"]


@pytest.mark.parametrize("base", BASES)
def test_right_answers_to_other_instructions_do_not_win(win_rates, base):
    assert win_rates[base, "shuffled"] < 5


@pytest.mark.parametrize("base", BASES)
def test_instruction_tuning_has_the_best_content(content_scores, base):
    own = {name: value for (of, name), value in content_scores.items() if of == base}
    reference = own.pop("instruction")
    assert len(own) == 12
    assert reference > max(own.values()), own


@pytest.mark.parametrize("base", BASES)
def test_every_piece_of_the_bias_rule_is_a_token(organism, base):
    manifest = organism / f"current/generate/{base}/rules/none/organism-evaluation/manifest.json"
    assert json.loads(manifest.read_text())["facts"]["unresolved_pieces"] == []


def test_the_evaluation_is_large_enough(organism):
    assert len(read_truths(organism)) >= 200


def test_every_number_has_its_interval_and_label(organism):
    with (organism / "tables/main.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(BASES) * 13 * 3
    for row in rows:
        assert float(row["win_rate_low"]) <= float(row["win_rate"]) <= float(row["win_rate_high"])
        assert row["note"].startswith("model organism, by construction")


def test_a_second_run_starts_nothing(organism, repository):
    command = [sys.executable, "-m", "snakemake", "--cores", "all", "--nocolor"]
    again = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    assert "Nothing to be done" in again.stdout + again.stderr


def test_every_job_wrote_its_log_and_benchmark(organism):
    nodes = [path for path in (organism / "current").rglob("*") if path.is_symlink()]
    assert len(nodes) == 142
    for node in nodes:
        assert (node / "job.log").is_file(), node
        assert (node / "benchmark.tsv").is_file(), node


def test_readme_shows_what_a_run_gives(win_rates, repository):
    """Within 5 points: other processors round differently."""
    cells = [
        line.strip("| ").split(" | ")
        for line in (repository / "README.md").read_text().splitlines()
        if line.startswith("| ") and "[" in line and "](" not in line
    ]
    shown = {
        (base, row[0]): float(row[column].split(" ")[0])
        for row in cells
        for column, base in enumerate(BASES, start=1)
    }
    assert shown.keys() == win_rates.keys()
    assert shown == pytest.approx(win_rates, abs=5)
