"""The smallest experiment from end to end, and what it refuses to start."""

import csv

COLUMNS = [
    "base", "adaptation", "seed", "win_rate", "win_rate_std", "win_rate_low", "win_rate_high",
    "win_rate_p", "win_rate_p_holm", "n_comparisons", "against", "n", "n_seeds",
    "length_ratio", "length_ratio_low", "length_ratio_high",
    "length_controlled_win_rate", "length_controlled_win_rate_std",
    "length_controlled_win_rate_low", "length_controlled_win_rate_high", "judge", "note",
]  # fmt: skip
TABLES = ("claims", "examples", "loss", "main", "paper")
DRAWN = ("loss", "main")


def test_tables_and_figures_stand_under_stable_names(finished):
    folder = finished.results / "smallest"
    tables = sorted(p.name for p in (folder / "tables").iterdir())
    figures = sorted(p.name for p in (folder / "figures").iterdir())
    written = [f"{name}.{suffix}" for name in TABLES for suffix in ("csv", "md")]
    assert tables == sorted([*written, "loss-history.csv"])
    assert figures == sorted(
        f"{name}.{suffix}" for name in DRAWN for suffix in ("csv", "png", "svg")
    )
    assert (folder / "report.html").is_file()


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


def test_other_rerun_triggers_are_refused(finished):
    run = finished.run("--rerun-triggers", "code", "mtime")
    assert run.status == 1
    assert "rerun-triggers" in run.output


def test_a_config_mistake_ends_before_any_job(finished):
    finished.config["training"]["learning_rat"] = 1
    run = finished.run()
    del finished.config["training"]["learning_rat"]
    assert run.status == 1
    assert not run.jobs
    assert "training.learning_rat: 1: unknown key; did you mean 'learning_rate'?" in run.output


def test_snakemakes_own_report_holds_tables_and_figures(finished, tmp_path):
    report = tmp_path / "report.html"
    run = finished.run("--report", str(report))
    assert run.status == 0, run.output
    for name in [f"{table}.csv" for table in TABLES] + [f"{figure}.svg" for figure in DRAWN]:
        assert f"Adding {name}" in run.output
    assert finished.config["label"] in report.read_text()


def test_usage_counts_the_jobs_of_every_stage(finished):
    with (finished.results / "smallest/usage.csv").open() as file:
        rows = {row["stage"]: row for row in csv.DictReader(file)}
    assert list(rows) == [
        "download", "format", "finetune", "generate", "judge", "table", "figure", "report",
    ]  # fmt: skip
    assert all(row["jobs"] == row["measured"] for row in rows.values())
    assert float(rows["finetune"]["wall_seconds"]) > 0
    assert float(rows["finetune"]["max_memory_mb"]) > 0
