"""The smallest experiment from end to end, and the first rows of the rerun matrix."""

import csv
import json
import shutil

import pytest

COLUMNS = [
    "base", "adaptation", "seed", "win_rate", "win_rate_std", "win_rate_low", "win_rate_high",
    "n", "length_ratio", "paper_llama2_7b", "paper_olmo_7b", "judge", "note",
]  # fmt: skip


@pytest.fixture
def checkout(finished):
    """The finished checkout, published as it was, with code and config put back after the test."""
    assert finished.run().status == 0
    config = json.loads(json.dumps(finished.config))
    scripts = finished.folder / "workflow"
    shutil.copytree(scripts, finished.folder / "kept")
    yield finished
    finished.config = config
    shutil.rmtree(scripts)
    (finished.folder / "kept").rename(scripts)


def edit(checkout, name, old, new):
    file = checkout.folder / "workflow/scripts" / name
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def reversed_keys(value):
    if isinstance(value, dict):
        return {key: reversed_keys(item) for key, item in reversed(value.items())}
    return value


def test_tables_and_figures_stand_under_stable_names(finished):
    folder = finished.results / "smallest"
    tables = sorted(p.name for p in (folder / "tables").iterdir())
    figures = sorted(p.name for p in (folder / "figures").iterdir())
    assert tables == ["loss.csv", "main.csv", "main.md", "rules.csv", "rules.md"]
    assert figures == ["loss.csv", "loss.png", "loss.svg", "main.csv", "main.png", "main.svg"]


def test_main_table_has_the_columns_and_a_row_a_run_and_mean(finished):
    with (finished.results / "smallest/tables/main.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == COLUMNS
    seen = [(row["adaptation"], row["seed"]) for row in rows]
    order = ["base", "instruction", "response", "chess", "rules", "rules-no-eos", "shuffled"]
    assert seen == [(adaptation, seed) for adaptation in order for seed in ("1", "mean")]
    assert {row["note"].split(";")[0] for row in rows} == {finished.config["label"]}
    reference = [row for row in rows if row["adaptation"] == "instruction"]
    assert {float(row["win_rate"]) for row in reference} == {50.0}
    for row in rows:
        low, rate, high = (float(row[f"win_rate{x}"]) for x in ("_low", "", "_high"))
        assert 0 <= low <= rate <= high <= 100
        assert int(row["n"]) == 16


def test_links_lead_to_every_node_of_the_config(finished):
    links = [p for p in (finished.results / "smallest/current").rglob("*") if p.is_symlink()]
    manifests = list((finished.results / "nodes").rglob("manifest.json"))
    assert len(links) == len(manifests)
    assert all((link / "manifest.json").is_file() for link in links)


def test_verify_finds_no_fault_in_what_was_just_built(finished):
    done = finished.tool("verify")
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_runs_when_nothing_changed(checkout):
    assert not checkout.run().jobs
    for file in checkout.folder.rglob("*"):
        if file.is_file():
            file.touch()
    assert not checkout.run().jobs
    shutil.rmtree(checkout.folder / ".snakemake")
    checkout.config = reversed_keys(checkout.config)
    checkout.config["training"]["learning_rate"] = "1e-4"
    run = checkout.run()
    assert run.status == 0
    assert not run.jobs


def test_comments_docstrings_and_formatting_run_nothing(checkout):
    edit(checkout, "implicit_tuning/training.py", '"""', '"""Changed. ')
    edit(checkout, "implicit_tuning/chat.py", "\n\n\n", "\n\n\n# A comment.\n\n")
    edit(checkout, "finetune.py", "import asdict", "import (\n    asdict,\n)")
    assert not checkout.run().jobs


def test_one_hyper_parameter_reruns_its_own_runs_and_going_back_only_publishes(checkout):
    checkout.config["adaptations"]["chess"]["training"] = {"epochs": 2}
    run = checkout.run()
    assert run.status == 0, run.output
    expected = {"finetune": 1, "generate": 1, "judge": 1, "table": 2, "figure": 2, "publish": 1}
    assert run.jobs == expected
    del checkout.config["adaptations"]["chess"]["training"]
    assert checkout.run().jobs == {"publish": 1}


def test_a_formatter_rewritten_to_the_same_bytes_reruns_formatting_only(checkout):
    edit(checkout, "implicit_tuning/datasets/chess.py", "\n\n\ndef ", "\n\nADDED = 0\n\n\ndef ")
    assert checkout.run().jobs == {"format": 1}


def test_a_failing_job_never_ends_well_over_an_old_table(checkout):
    table = checkout.results / "smallest/tables/main.csv"
    before = table.read_text()
    checkout.config["adaptations"]["chess"]["training"] = {"learning_rate": 1e38}
    runs = [checkout.run(), checkout.run()]
    assert [run.status for run in runs] == [1, 1]
    assert all("table" not in run.jobs for run in runs)
    assert table.read_text() == before
    del checkout.config["adaptations"]["chess"]["training"]
    assert checkout.run().status == 0


def test_a_lost_checkpoint_is_rebuilt_only_for_a_new_decoding(checkout):
    [link] = (checkout.results / "smallest/current/finetune/organism-llama/chess").iterdir()
    shutil.rmtree(link.resolve())
    assert not checkout.run().jobs
    checkout.config["adaptations"]["chess"]["generation"] = {"max_new_tokens": 6}
    run = checkout.run()
    assert run.status == 0, run.output
    assert (run.jobs["finetune"], run.jobs["generate"], run.jobs["judge"]) == (1, 1, 1)


def test_a_truncated_file_is_named_and_repaired(checkout):
    [link] = (checkout.results / "smallest/current/format/organism-chess").iterdir()
    rows = link / "data/rows.jsonl"
    whole = rows.read_bytes()
    rows.write_bytes(whole[:-5])
    found = checkout.tool("verify")
    assert found.returncode == 1
    assert "rows.jsonl has" in found.stdout
    repaired = checkout.tool("repair")
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    assert rows.read_bytes() == whole
    assert checkout.tool("verify").returncode == 0


def test_a_truncated_manifest_of_a_cut_off_is_named_and_repaired(checkout):
    [link] = (checkout.results / "smallest/current/format/organism-chess").iterdir()
    manifest = link.resolve() / "manifest.json"
    manifest.write_text(manifest.read_text()[:20])
    run = checkout.run()
    assert run.status == 1
    assert "manifest.json is damaged: run 'make repair'" in run.output
    repaired = checkout.tool("repair")
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    assert not checkout.run().jobs


def test_a_lost_table_is_built_and_published_again(checkout):
    [link] = (checkout.results / "smallest/current/table").glob("main")
    shutil.rmtree(link.resolve())
    run = checkout.run()
    assert run.status == 0, run.output
    assert run.jobs == {"table": 1, "publish": 1}
    assert not checkout.run().jobs


def test_a_stable_copy_that_was_removed_comes_back(checkout):
    table = checkout.results / "smallest/tables/main.md"
    whole = table.read_bytes()
    table.unlink()
    assert checkout.run("--dry-run").jobs == {"publish": 1}
    assert checkout.run().jobs == {"publish": 1}
    assert table.read_bytes() == whole
    assert not checkout.run().jobs


def test_other_rerun_triggers_are_refused(checkout):
    run = checkout.run("--rerun-triggers", "code", "mtime")
    assert run.status == 1
    assert "rerun-triggers" in run.output


def test_a_config_mistake_ends_before_any_job(checkout):
    checkout.config["training"]["learning_rat"] = 1
    run = checkout.run()
    assert run.status == 1
    assert not run.jobs
    assert "training.learning_rat: 1: unknown key; did you mean 'learning_rate'?" in run.output
