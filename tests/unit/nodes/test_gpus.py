"""Jobs on one machine take different GPUs."""

import os
import subprocess
import sys
import threading

import pytest

from implicit_tuning.nodes import gpus
from implicit_tuning.nodes.gpus import VISIBLE, claimed_gpus, gpus_needed


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A driver's tool that tells of three GPUs, and locks of this test's own."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\nprintf 'GPU-a\\nGPU-b\\nGPU-c\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(gpus.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(gpus, "POLL_SECONDS", 0.01)
    for name in (VISIBLE, gpus.OF_A_CLUSTER):
        monkeypatch.delenv(name, raising=False)
    return tool


def seen():
    return os.environ.get(VISIBLE)


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"seed": 1, "training": {"device": "cuda", "world_size": 2}}, 2),
        ({"generation": {"device": "cuda"}}, 1),
        ({"generation": {"device": "cpu"}}, 0),
        ({"reference": "instruction"}, 0),
    ],
)
def test_a_node_needs_as_many_as_its_settings_say(settings, count):
    assert gpus_needed(settings) == count


def test_jobs_hold_different_ones_and_give_them_back():
    with claimed_gpus(2):
        assert seen() == "GPU-a,GPU-b"
        assert claimed_by_another_process(1) == "GPU-c"
    assert seen() is None
    with claimed_gpus(3):
        assert seen() == "GPU-a,GPU-b,GPU-c"


def claimed_by_another_process(count):
    code = (
        "import os, sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
        "from implicit_tuning.nodes.gpus import claimed_gpus\n"
        f"with claimed_gpus({count}):\n    print(os.environ.get('{VISIBLE}'))"
    )
    environment = {name: value for name, value in os.environ.items() if name != VISIBLE}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", code, gpus.tempfile.gettempdir()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_job_waits_until_enough_are_free():
    order = []

    def second():
        # Another thread stands for another job: locks are of file descriptors, not of processes.
        with claimed_gpus(2):
            order.append("second")

    with claimed_gpus(2):
        waiting = threading.Thread(target=second)
        waiting.start()
        waiting.join(0.1)
        order.append("first")
    waiting.join(10)
    assert order == ["first", "second"]


def test_only_those_that_the_user_left_are_taken(monkeypatch):
    monkeypatch.setenv(VISIBLE, "2,0")
    with claimed_gpus(1):
        assert seen() == "2"
    assert seen() == "2,0"


def test_a_cluster_deals_its_own(monkeypatch):
    monkeypatch.setenv(gpus.OF_A_CLUSTER, "7")
    with claimed_gpus(1):
        assert seen() is None


def test_where_there_are_too_few_nothing_is_taken(machine):
    with claimed_gpus(4):
        assert seen() is None
    machine.unlink()
    with claimed_gpus(1):
        assert seen() is None
