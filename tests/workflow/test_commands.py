"""The commands beside the workflow, on the finished smallest experiment."""

import re

import pytest


@pytest.fixture(scope="module")
def checkout(finished):
    """The finished checkout under a config that changes one learning rate."""
    assert finished.run().status == 0
    finished.tool("prune", "--force")
    assert counts_of(finished.tool("plan"))["all"] == ["32", "32", "0"]
    finished.config["adaptations"]["chess"]["training"] = {"learning_rate": 2.0e-4}
    yield finished
    finished.config["adaptations"]["chess"].pop("training", None)


def counts_of(done):
    """Nodes, built and to do, by stage."""
    table = done.stdout.partition("\n\n")[0].splitlines()[1:]
    return {line.split()[0]: line.split()[1:4] for line in table}


def test_plan_counts_nodes_that_stand_and_that_are_to_do(checkout):
    done = checkout.tool("plan")
    counts = counts_of(done)
    assert "grid: 3 finetunes" in done.stdout
    assert "wall time: about" in done.stdout
    assert counts["finetune"] == ["3", "2", "1"]
    assert counts["generate"] == ["7", "6", "1"]
    assert counts["table"] == ["5", "0", "5"]
    assert counts["all"] == ["32", "21", "11"]


def test_check_names_the_experiment(checkout):
    assert "experiment 'smallest', 32 nodes" in checkout.tool("check").stdout


def test_explain_names_the_key_that_changed_and_what_it_makes_stale(checkout):
    done = checkout.tool("explain", "finetune/organism-llama/chess")
    assert "finetune/organism-llama/chess/1: stale" in done.stdout
    assert "config: training.learning_rate: 0.0001 -> 0.0002" in done.stdout
    below = checkout.tool("explain", "generate/organism-llama/chess").stdout
    assert "upstream: model:" in below
    assert "\n  config:" not in below
    assert "up to date" in checkout.tool("explain", "finetune/organism-llama/response").stdout


def test_explain_follows_a_stale_table_up_to_the_cause(checkout):
    lines = checkout.tool("explain", "table/main").stdout.splitlines()
    assert lines[0].startswith("table/main: stale; against the newest, ")
    node = "finetune/organism-llama/chess/1"
    cause = f"  because of {node}: config: training.learning_rate: 0.0001 -> 0.0002"
    assert [line for line in lines if "because of" in line] == [cause]


def test_explain_refuses_a_name_that_is_no_node(checkout):
    done = checkout.tool("explain", "finetune/nobody")
    assert done.returncode == 1
    assert "no node 'finetune/nobody'" in done.stderr


def test_preview_marks_every_gap(checkout):
    lines = checkout.tool("preview").stdout.splitlines()
    assert lines[0] == "PREVIEW: 6 of 7 comparisons."
    gap = "gap: judge/organism-llama/chess/1/organism-evaluation/1/oracle"
    assert [line for line in lines if line.startswith("gap")] == [gap]
    assert sum("| organism-llama |" in line for line in lines) == 12


def test_verify_names_what_is_missing(checkout):
    done = checkout.tool("verify")
    assert done.returncode == 1
    assert done.stdout.count("not built") == 11
    assert re.search(r"32 artifacts, \d+\.\d MB in .* s \(\d+ MB/s\), 11 problems", done.stdout)


def test_prune_lists_first_and_deletes_only_what_nobody_needs(checkout):
    assert "0.0 MB  in all; nothing deleted" in checkout.tool("prune").stdout
    leftover = checkout.results / "nodes/finetune/organism-llama/chess/1/0123"
    (leftover / "data").mkdir(parents=True)
    (leftover / "data/half.safetensors").write_bytes(b"x" * 200_000)
    listed = checkout.tool("prune").stdout
    assert "0.2 MB  " + str(leftover.relative_to(checkout.folder)) in listed
    assert leftover.exists()
    assert "0.2 MB  deleted" in checkout.tool("prune", "--force").stdout
    assert not leftover.exists()
    del checkout.config["adaptations"]["chess"]["training"]
    assert not checkout.run().jobs


def test_unlock_says_when_nothing_is_alive(checkout):
    assert checkout.tool("unlock").returncode == 0
