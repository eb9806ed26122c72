"""Every analysis beside win rates, laid over the finished smallest experiment."""

import copy
import csv
import json
import shutil

import pytest
import yaml

from implicit_tuning.experiment.config import merge

TABLES = ("ranking", "similarity", "drift", "ablation-rules", "ablation-rows")
TAGGED = "organism-llama/response-other-tags/1"


@pytest.fixture(scope="module")
def checkout(finished, repository, tmp_path_factory):
    """A checkout over a copy of the finished results, whose config asks for all analyses."""
    made = copy.deepcopy(finished)
    made.check_out(tmp_path_factory.mktemp("analyses") / "checkout")
    shutil.copytree(finished.results, made.results, symlinks=True)
    more = yaml.safe_load((repository / "tests/fixtures/analyses.yaml").read_text())
    made.config = merge(made.config, more)
    return made


@pytest.fixture(scope="module")
def analysed(checkout):
    """The checkout when all of it has run; what stood before was not made again."""
    gaps = checkout.tool("preview").stdout
    assert "7 of 12 comparisons, 0 of 8 rankings, 0 of 1 similarities" in gaps
    assert "gap: rank/organism-llama/base/none/organism-alpaca" in gaps
    run = checkout.run()
    assert run.status == 0, run.output
    assert (run.jobs["finetune"], run.jobs["generate"], run.jobs["judge"]) == (4, 5, 5)
    assert (run.jobs["rank"], run.jobs["similarity"]) == (8, 1)
    return checkout


def rows_of(checkout, table):
    with (checkout.results / f"smallest/tables/{table}.csv").open() as file:
        return list(csv.DictReader(file))


def manifest_of(checkout, node):
    [file] = (checkout.results / "smallest/current").glob(f"{node}/manifest.json")
    return json.loads(file.read_text())


def test_each_analysis_has_a_table_and_a_figure_and_stands_in_the_report(analysed):
    folder = analysed.results / "smallest"
    page = (folder / "report.html").read_text()
    for table in TABLES:
        assert rows_of(analysed, table)
        for suffix in ("svg", "png", "csv"):
            assert (folder / f"figures/{table}.{suffix}").is_file()
        assert f'id="table-{table}"' in page


def test_nothing_is_left_to_do(analysed):
    assert not analysed.run().jobs
    assert analysed.tool("verify").returncode == 0


def test_rankings_are_of_every_model_and_count_their_comparisons(analysed):
    rows = {row["adaptation"]: row for row in rows_of(analysed, "ranking")}
    assert set(rows) == {
        "base", "instruction", "response", "chess", "response-8-rows", "response-random",
        "response-rephrased", "response-other-tags",
    }  # fmt: skip
    assert {row["n"] for row in rows.values()} == {str(8 * 2)}
    assert rows["base"]["difference"] == ""
    assert rows["chess"]["difference"] != ""


def test_drift_is_told_near_the_task_and_far_from_it(analysed):
    regions = {row["region"]: int(row["n"]) for row in rows_of(analysed, "drift")}
    assert set(regions) == {"near", "far"}
    assert sum(regions.values()) == 16


def test_rows_of_config_decide_what_is_trained_on(analysed):
    facts = manifest_of(analysed, "format/organism-lima/blank-instructions-8-rows")["facts"]
    assert facts["used"] == 8
    named = "format/organism-lima/blank-instructions-32-rows-rephrased-by-short"
    rephrased = manifest_of(analysed, named)["facts"]["rephrase"]
    assert 0 < rephrased["n_rewritten"] <= rephrased["n_restating"]
    for stage in ("finetune", "generate"):
        node = f"{stage}/{TAGGED}" + ("/organism-evaluation" if stage == "generate" else "")
        chat = manifest_of(analysed, node)["settings"]["chat"]
        assert (chat["user"], chat["assistant"]) == ("<|A|>", "<|B|>")


def test_a_row_with_another_reference_says_so(analysed):
    rows = {r["adaptation"]: r for r in rows_of(analysed, "main") if r["seed"] == "mean"}
    assert rows["response-other-tags"]["against"] == "response"
    assert rows["chess"]["against"] == "instruction"


def test_an_ablation_over_numbers_has_their_values(analysed):
    settings = {row["adaptation"]: row["setting"] for row in rows_of(analysed, "ablation-rows")}
    assert settings == {"response-8-rows": "8", "response": "32"}
