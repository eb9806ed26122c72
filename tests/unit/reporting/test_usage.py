"""Time and memory by stage, from benchmark files as Snakemake writes them."""

import csv

import pytest

from implicit_tuning.reporting.usage import usage_by_stage, write_usage

HEADER = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


@pytest.fixture
def nodes(tmp_path):
    rows = {
        "finetune/b/chess/1": ["2.5\t0:00:02\t300.5\t1\t1\t1\t0\t0\t90\t2.25\n"],
        "finetune/b/chess/2": [
            "9\t-\t1\t1\t1\t1\t0\t0\t90\t9\n",
            "4\t-\t280\t1\t1\t1\t0\t0\t9\t3\n",
        ],
        "finetune/b/chess/3": None,
        "table/main": ["0.4\t0:00:00\tNA\tNA\tNA\tNA\tNA\tNA\tNA\tNA\n"],
    }
    folders = {name: tmp_path / name for name in rows}
    for name, lines in rows.items():
        folders[name].mkdir(parents=True)
        if lines is not None:
            (folders[name] / "benchmark.tsv").write_text(HEADER + "".join(lines))
    return folders


def test_figures_are_over_the_last_measurement_of_each_job(nodes):
    finetune, table = usage_by_stage(nodes)
    assert (finetune.stage, finetune.jobs, finetune.measured) == ("finetune", 3, 2)
    assert finetune.wall_seconds == 6.5
    assert finetune.wall_seconds_median == 3.25
    assert finetune.cpu_seconds == 5.25
    assert finetune.max_memory_mb == 300.5
    assert (table.jobs, table.measured, table.wall_seconds, table.max_memory_mb) == (1, 1, 0.4, 0)


def test_table_for_people_and_for_programs(nodes, tmp_path):
    write_usage(usage_by_stage(nodes), tmp_path)
    with (tmp_path / "usage.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["stage"] for row in rows] == ["finetune", "table"]
    assert rows[0]["wall_seconds"] == "6.5"
    assert "| finetune |      3 |" in (tmp_path / "usage.md").read_text()
