"""Pinning what a config takes from the hub: each entry once, and what is known before a fault stays."""

import json
import os
import subprocess
import sys

import pytest

from hub_server import Fault, HubServer
from implicit_tuning.remote.lockfile import read_lock

ROW = json.dumps({"conversations": ["How?", "So."], "source": "wiki"}).encode()
LOCK = """
import sys
from pathlib import Path
from implicit_tuning.experiment.config_reading import read_config
from implicit_tuning.nodes.digests import DigestMemory
from implicit_tuning.remote.lockfile import LockError
from implicit_tuning.commands.lock.command import lock_missing
from implicit_tuning.experiment.planners.all_nodes import build_plan
root = Path(sys.argv[1])
plan = build_plan(read_config([root / "config/config.yaml"], root, sys.argv[3:]), DigestMemory(root / "d"))
try:
    print(*lock_missing(plan, Path(sys.argv[2])))
except LockError as error:
    sys.exit(str(error))
"""


@pytest.fixture
def lock(repository, tmp_path):
    """Function that locks the default experiment under overrides, against a hub."""
    root = tmp_path / "root"
    root.mkdir()
    for name in ("config", "resources"):
        (root / name).symlink_to(repository / name)
    file = tmp_path / "lock.yaml"

    def run(hub, *overrides):
        environment = os.environ | hub.environment(tmp_path / "home")
        environment["PYTHONPATH"] = str(repository / "workflow/scripts")
        command = [sys.executable, "-c", LOCK, str(root), str(file), *overrides]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return done, read_lock(file)

    return run


DATA = "datasets={organism-lima: {hub: {repo: small/talk, file: train.jsonl}}}"
BASES = "bases={organism-olmo: {paper: olmo-7b}, mine: {hub: {repo: small/model, revision: v1}}}"


def hub_with(server):
    files = {"model.safetensors": b"weights", "config.json": b"{}", "tokenizer.json": b"{}"}
    server.repository("models/small/model", files, revisions=("main", "v1"))
    return server.repository("datasets/small/talk", {"train.jsonl": ROW})


def test_every_entry_in_use_is_locked_once(lock):
    with HubServer() as server:
        done, pins = lock(hub_with(server), DATA, BASES)
    assert done.returncode == 0, done.stderr
    assert set(pins) == {"datasets/small/talk@main", "models/small/model@v1"}
    assert set(done.stdout.split()) == set(pins)
    assert set(pins["models/small/model@v1"].files) == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }


def test_an_entry_that_nobody_uses_is_left_alone(lock):
    with HubServer() as server:
        done, pins = lock(server)
    assert (done.returncode, pins, server.requests) == (0, {}, [])


def test_what_was_locked_before_a_fault_stays(lock):
    with HubServer() as server:
        hub_with(server).fail("api/models/small/model", *[Fault(status=404)] * 3)
        done, pins = lock(server, DATA, BASES)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("bases.mine: ")
    assert set(pins) == {"datasets/small/talk@main"}
