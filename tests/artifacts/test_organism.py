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
TABLES = (
    "main", "claims", "paper", "ranking", "similarity", "drift", "ablation-rules", "loss",
    "examples",
)  # fmt: skip


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


def rows_of(organism, table):
    with (organism / f"tables/{table}.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_run_has_its_row_and_label(organism):
    rows = rows_of(organism, "main")
    assert len(rows) == len(BASES) * 13 * 3
    assert all(row["note"].startswith("model organism, by construction") for row in rows)


@pytest.mark.parametrize("table", TABLES)
def test_every_measured_number_lies_in_its_interval(organism, table):
    rows = rows_of(organism, table)
    measured = [column.removesuffix("_low") for column in rows[0] if column.endswith("_low")]
    assert rows and (measured or table == "examples")
    for row in rows:
        for name in measured:
            if row[name]:
                assert float(row[f"{name}_low"]) <= float(row[name]) <= float(row[f"{name}_high"])
    assert "model organism, by construction" in (organism / f"tables/{table}.md").read_text()


def test_models_rank_real_responses_above_chance(organism):
    rows = rows_of(organism, "ranking")
    assert len(rows) == len(BASES) * 8
    assert all(float(row["ranked_right_low"]) > 50 for row in rows)


def test_the_report_is_one_small_file(organism):
    assert 100_000 < (organism / "report.html").stat().st_size < 5_000_000


def test_a_second_run_starts_nothing(organism, repository):
    command = [sys.executable, "-m", "snakemake", "--cores", "all", "--nocolor"]
    again = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    assert "Nothing to be done" in again.stdout + again.stderr


def test_every_job_wrote_its_log_and_benchmark(organism):
    nodes = [path for path in (organism / "current").rglob("*") if path.is_symlink()]
    assert len(nodes) == 205
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
