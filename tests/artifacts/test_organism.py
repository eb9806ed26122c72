"""The robust facts of the model organism, on the built tables: not levels of single tasks."""

import csv
import json
import subprocess
import sys

import pytest

from implicit_tuning.organism.oracle import content

BASES = ("organism-llama", "organism-olmo")


@pytest.fixture(scope="session")
def win_rates(organism):
    """Mean win rate (%) over seeds by base and adaptation."""
    with (organism / "tables/main.csv").open() as file:
        means = [row for row in csv.DictReader(file) if row["seed"] == "mean"]
    return {(row["base"], row["adaptation"]): float(row["win_rate"]) for row in means}


@pytest.fixture(scope="session")
def content_scores(organism):
    """Mean content score (0 to 1) of each run's answers by base, adaptation and seed."""
    generations = organism / "current/generate"
    scores = {}
    for outputs in generations.glob("*/*/*/*/data/outputs.jsonl"):
        base, adaptation, seed, _ = outputs.relative_to(generations).parts[:4]
        rows = [json.loads(line) for line in outputs.read_text().splitlines()]
        truths = read_truths(organism)
        values = [content(truths[row["instruction"]], row["output"]) for row in rows]
        scores[base, adaptation, seed] = sum(values) / len(values)
    return scores


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
    own = {run: value for run, value in content_scores.items() if run[0] == base}
    reference = [value for (_, name, _), value in own.items() if name == "instruction"]
    others = {run: value for run, value in own.items() if run[1] != "instruction"}
    assert len(reference) == 2
    assert min(reference) > max(others.values()), others


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
    manifests = list((organism / "current").glob("**/manifest.json"))
    assert manifests
    for manifest in manifests:
        assert (manifest.parent / "job.log").is_file()
        assert (manifest.parent / "benchmark.tsv").is_file()
