"""Jobs of the smallest experiment load models only where their stage needs them, while they run."""

import json
import os
import subprocess
import sys

import pytest

from implicit_tuning.experiment.config_reading import load_config
from implicit_tuning.experiment.planners.all_nodes import build_plan
from implicit_tuning.nodes.digests import DigestMemory
from implicit_tuning.nodes.job import job_spec
from implicit_tuning.nodes.node import NodePaths

MODELS = {"torch", "transformers"}
STAGES = ["download", "format", "generate", "judge", "table", "figure", "report"]


@pytest.fixture(scope="module")
def planned(finished):
    """Plan of the finished experiment, and its paths."""
    plan = build_plan(
        load_config(finished.config, finished.folder), DigestMemory(finished.folder / "again.json")
    )
    return plan, NodePaths(finished.results)


@pytest.fixture
def loaded_by(finished, planned, repository, tmp_path):
    """Function that builds a node again, elsewhere, and returns the modules that its job loaded."""

    def build(stage, **settings):
        plan, paths = planned
        node = next(n for n in plan.stage(stage) if settings.items() <= n.settings.items())
        spec = json.loads(job_spec(paths, node)) | {"folder": str(tmp_path / "again")}
        scripts = finished.folder / "workflow/scripts"
        script = "shuffle" if node.code.roots == ("shuffle",) else stage
        run = [repository / "benchmarks/run_script.py", scripts / f"{script}.py", json.dumps(spec)]
        done = subprocess.run(
            [sys.executable, *map(str, run), str(tmp_path / "job.log")],
            cwd=finished.folder,
            env={**os.environ, "PYTHONPATH": str(scripts)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "again/manifest.json").is_file()
        return set(json.loads(done.stdout.splitlines()[-1]))

    return build


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "generate"])
def test_a_job_without_a_model_never_loads_torch(loaded_by, stage):
    modules = loaded_by(stage)
    assert "implicit_tuning.nodes.artifact" in modules
    assert not MODELS & modules


def test_a_shuffled_generation_needs_no_model(loaded_by):
    assert not MODELS & loaded_by("generate", generator="shuffled")


def test_a_generation_loads_them(loaded_by):
    assert loaded_by("generate", generator="base") >= MODELS
