"""The scripts of tables and figures, from their nodes' specs to the files."""

import json
from pathlib import Path

from comparison_folders import annotations
from figure import draw_figure
from implicit_tuning.nodes.artifact import read_manifest
from implicit_tuning.nodes.job import building
from table import build_table


def node(make_spec, key, **changes):
    """Spec of a node, and what a node below it says of it."""
    spec = make_spec(key=key, **changes)
    return spec, {"node": json.loads(spec)["folder"], "key": key}


def built_comparison(make_spec):
    spec, above = node(make_spec, "k-judge")
    with building(spec) as job:
        rows = "".join(json.dumps(row) + "\n" for row in annotations(0.4, 1))
        (job.data / "annotations.jsonl").write_text(rows)
        summary = {"judge_id": "o", "length_controlled_winrate": None, "lc_status": "none"}
        (job.data / "summary.json").write_text(json.dumps(summary))
    return above


def test_a_table_and_its_figure_are_built_as_their_nodes_say(make_spec):
    settings = {
        "table": "headline",
        "module": "main",
        "label": "mine",
        "reference": "instruction",
        "adaptations": ["response"],
        "notes": {},
    }
    upstream = {"a/response/1/set/1/oracle": built_comparison(make_spec)}
    spec, table = node(make_spec, "k-table", settings=settings, upstream=upstream)
    with building(spec) as job:
        assert list(build_table(job).frame["seed"]) == ["1", "mean"]
    assert sorted(read_manifest(Path(table["node"]))["files"]) == ["headline.csv", "headline.md"]
    settings = {
        "figure": "headline",
        "module": "main",
        "label": "mine",
        "reference": "instruction",
        "controls": [],
    }
    spec, figure = node(make_spec, "k-figure", settings=settings, upstream={"table": table})
    with building(spec) as job:
        draw_figure(job)
    files = ["headline.csv", "headline.png", "headline.svg"]
    assert sorted(read_manifest(Path(figure["node"]))["files"]) == files


def test_of_a_finetune_only_the_history_is_read(make_spec):
    spec, above = node(make_spec, "k-finetune")
    with building(spec) as job:
        row = {"epoch": 1, "update": 1, "loss": 2.0}
        (job.data / "loss_history.jsonl").write_text(json.dumps(row) + "\n")
        (job.data / "weights.bin").write_text("whole")
    (Path(above["node"]) / "data/weights.bin").write_text("other")  # as many bytes
    settings = {"table": "loss", "module": "loss", "label": "", "adaptations": ["response"]}
    spec, table = node(make_spec, "k-table", settings=settings, upstream={"a/response/1": above})
    with building(spec) as job:
        build_table(job)
    files = sorted(read_manifest(Path(table["node"]))["files"])
    assert files == ["loss-history.csv", "loss.csv", "loss.md"]
