"""What an audit asks a yes for, and that it starts nothing that is known to fail."""

import argparse
import subprocess
from types import SimpleNamespace

import psutil
import pytest

from implicit_tuning.commands.audit.base_config import ORGANISM, REAL
from implicit_tuning.commands.audit.command import (
    add_arguments,
    audit_model,
    needs_yes,
    run_workflow,
)
from implicit_tuning.commands.audit.request import Asked, request_audit
from implicit_tuning.experiment.config_reading import load_config, read_raw
from implicit_tuning.experiment.costs.estimate import estimate_costs
from implicit_tuning.experiment.planners.all_nodes import build_plan
from implicit_tuning.nodes.digests import DigestMemory
from implicit_tuning.nodes.node import NodePaths

RUN = "organism-llama/gsm8k/1"
LOCAL, ELSEWHERE = "http://127.0.0.1:8000/v1", "https://judges.example.com/v1"


@pytest.fixture
def asking(repository, tmp_path, monkeypatch, no_openai_environment):
    """Function that says what an audit of a run under a config needs a yes for."""
    monkeypatch.chdir(repository)

    def lines(raw, run=RUN):
        config = load_config(request_audit(raw, Asked(run)), repository)
        plan = build_plan(config, DigestMemory(tmp_path / "digests"))
        paths = NodePaths(tmp_path / "results")
        return list(needs_yes(plan, paths, estimate_costs(plan, paths)))

    return lines


def judged_by(**entry):
    judge = {"kind": "openai", "model": "judge-1", **entry}
    return {**read_raw([ORGANISM]), "judge": "paid", "judges": {"paid": judge}}


def test_what_is_free_and_here_just_starts(asking):
    assert asking(read_raw([ORGANISM])) == []
    assert asking(judged_by(base_url=LOCAL)) == []


def test_a_judge_elsewhere_may_cost_money(asking, monkeypatch):
    for raw in (judged_by(), judged_by(base_url=ELSEWHERE)):
        (line,) = asking(raw)
        assert "calls that may cost money (judges.paid)" in line
    monkeypatch.setenv("OPENAI_BASE_URL", LOCAL)
    assert asking(judged_by()) == []
    (line,) = asking(judged_by(base_url=ELSEWHERE))


def test_models_and_data_of_the_hub_are_downloads(asking):
    (line,) = asking(read_raw([REAL]), "smollm2-135m/gsm8k/1")
    assert line.startswith("downloads ")
    assert not line.startswith("downloads 0.00")


def parsed(*given):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = parser.parse_args(given)
    arguments.configfile, arguments.config = None, []
    return arguments


def test_a_folder_may_end_in_a_slash():
    arguments = parsed("--model", "a/b/", "--base", "c/", "--reference", "/")
    assert (arguments.model, arguments.base, arguments.reference) == ("a/b", "c", "/")


def test_lines_of_failed_jobs_come_last(repository, monkeypatch, capfd, tmp_path):
    """A stand-in for Snakemake fails as it does: a job's own line among many others."""
    monkeypatch.chdir(repository)
    plan = build_plan(
        load_config(request_audit(read_raw([ORGANISM]), Asked(RUN)), repository),
        DigestMemory(tmp_path / "digests"),
    )
    (node,) = plan.stage("audit")
    (tmp_path / "snakemake.py").write_text(
        "import sys\n"
        f"print('step 1\\n{node.name}: OSError: why\\nlater', file=sys.stderr)\n"
        "sys.exit('--quiet' in sys.argv and '--configfile' in sys.argv)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert not run_workflow(tmp_path / "config.yaml", plan)
    lines = capfd.readouterr().err.splitlines()
    assert lines[:3] == ["step 1", f"{node.name}: OSError: why", "later"]
    assert lines[3].startswith("audit: not finished")
    assert lines[4:] == [f"  - {node.name}: OSError: why"]


def test_values_of_make_reach_the_audit_as_they_are(repository):
    given = 'it\'s "here" `no`/$$(x)'
    made = ["make", "--silent", "STAMP=Makefile", "TOOL=printf '%s|'"]
    for target, values in {
        "audit": ("MODEL", "BASE", "TASK_DATA", "REFERENCE"),
        "chat": ("RUN",),
        "publish": ("RUN", "REPO"),
        "eval": ("MODEL", "REFERENCE"),
        "train_task": ("MODEL", "TASK"),
    }.items():
        command = [*made, target, *(f"{name}={given}" for name in values)]
        done = subprocess.run(
            command, cwd=repository, capture_output=True, text=True, check=True, timeout=60
        )
        plain = given.replace("$$", "$")
        assert done.stdout.split("|").count(plain) == len(values), done.stdout


def test_too_little_memory_is_said_before_anything_starts(
    repository, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(repository)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=1e6))
    assert audit_model(parsed("--model", RUN), tmp_path / "results") == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("config: config/config.yaml (which has the base")
    assert printed.err.startswith("audit: not started")
    assert "finetune on organism-llama needs up to" in printed.err
    assert not (tmp_path / "results/nodes").exists()
