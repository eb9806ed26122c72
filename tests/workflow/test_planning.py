"""What keeps planning fast, in the workspaces of benchmarks/dag.py: nothing here is timed."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import dag
from implicit_tuning.experiment.plan import is_built
from implicit_tuning.experiment.stable_names import plan_stable_names
from implicit_tuning.nodes.job import job_spec
from implicit_tuning.nodes.node import CUT_OFF, Node, NodePaths

SELECTED = re.compile(r"^selected job (\w+)\n +wildcards: (.*)$", re.MULTILINE)
HEAVY = {"torch", "transformers", "datasets", "pandas", "scipy", "matplotlib", "alpaca_eval"}
IMPORTED_BY_A_PLAN = (
    "import sys; sys.argv = ['', 'plan']; from implicit_tuning.__main__ import main; "
    "assert main() == 0; print(*sys.modules)"
)


@pytest.fixture(scope="module")
def workspaces(tmp_path_factory) -> dict[str, Path]:
    """The paper's grid with one seed, in every state."""
    cases = dag.make_cases(tmp_path_factory.mktemp("grid"), seeds=1)
    return {case.state: case.folders["ours"] for case in cases}


def run(workspace, *command):
    done = subprocess.run(
        [sys.executable, *command],
        cwd=workspace,
        env=dag.workspace_environment(workspace),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def selected(workspace):
    """Distinct jobs that Snakemake makes for a dry run, by rule."""
    output = run(workspace, "-m", "snakemake", "-n", "--nocolor", "--quiet", "--debug-dag")
    return Counter(rule for rule, _ in set(SELECTED.findall(output)))


def test_built_nodes_are_no_jobs(workspaces):
    assert set(selected(workspaces["finished"])) <= {"all", "stable_names"}


def test_a_changed_training_is_all_that_is_planned(workspaces):
    runs = {"finetune": 2, "generate": 2, "judge": 2, "rank": 2, "similarity": 2}
    # One request for each way to measure. The table of the rules reads no finetuned run.
    below = {"measured": 3, "table": 6, "figure": 5, "report": 1, "stable_names": 1, "all": 1}
    assert selected(workspaces["changed"]) == {**runs, **below}


def test_no_job_is_made_twice_below_a_checkpoint_that_stands(workspaces):
    # Snakemake makes every job again that has a finished checkpoint among its inputs.
    output = run(workspaces["fresh"], "-m", "snakemake", "-n", "--nocolor", "--quiet", "rules")
    assert re.search(r"^finetune +70$", output, re.MULTILINE), output
    assert "Updating checkpoint dependencies" not in output


def test_drawings_show_built_nodes_too(workspaces):
    drawing = run(workspaces["finished"], "-m", "snakemake", "--rulegraph")
    rules = set(re.findall(r'label = "(\w+)"', drawing))
    assert {"download", "format", "finetune", "generate", "judge", "table", "figure"} <= rules


def test_each_key_is_computed_and_each_cut_off_read_once(workspaces, monkeypatch):
    keyed, read = Counter(), Counter()
    key_over, read_text = Node.key_over, Path.read_text

    def counting_key_over(node, upstream):
        keyed[node] += 1
        return key_over(node, upstream)

    def counting_read_text(path, *arguments, **options):
        read[path] += 1
        return read_text(path, *arguments, **options)

    monkeypatch.setattr(Node, "key_over", counting_key_over)
    monkeypatch.setattr(Path, "read_text", counting_read_text)
    workspace = workspaces["finished"]
    plan = dag.plan_in(workspace, dag.paper_grid(seeds=1))
    paths = NodePaths(workspace / "results")
    for _ in range(3):
        assert all(is_built(paths, node) for node in plan.nodes.values())
        assert all(job_spec(paths, node) for node in plan.nodes.values())
        assert plan_stable_names(plan, paths).is_true()
    # Once for the plan key, once for the key in the path.
    assert keyed == dict.fromkeys(plan.nodes.values(), 2)
    cut_offs = [paths.manifest(node) for stage in CUT_OFF for node in plan.stage(stage)]
    assert cut_offs
    assert {path: read[path] for path in cut_offs} == dict.fromkeys(cut_offs, 1)


def test_a_plan_imports_nothing_heavy(workspaces):
    printed = run(workspaces["fresh"], "-c", IMPORTED_BY_A_PLAN)
    imported = set(printed.splitlines()[-1].split())
    assert "implicit_tuning.experiment.plan" in imported
    assert not HEAVY & imported
