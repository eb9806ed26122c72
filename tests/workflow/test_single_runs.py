"""`make train_resp MODEL=...` and `make eval MODEL=...`: one run for models that no config names,
from a hub that a server on loopback plays."""

import json

import pytest
import yaml

from hub_server import HubServer
from implicit_tuning.organism.rows import write_source


@pytest.fixture(scope="module")
def hub(repository, tmp_path_factory):
    """A hub with a base, and a data set of few rows."""
    base = repository / "resources/organism/llama"
    files = {file.name: file.read_bytes() for file in base.iterdir() if file.is_file()}
    source = write_source("lima", tmp_path_factory.mktemp("lima"))
    rows = b"".join(source.read_bytes().splitlines(keepends=True)[:24])
    with HubServer() as server:
        server.repository("models/small/llama", files)
        server.repository("datasets/small/talk", {"train.jsonl": rows})
        yield server


@pytest.fixture(scope="module")
def asking(new_checkout, hub, tmp_path_factory):
    """A checkout whose config has the hub's data set."""
    checkout = new_checkout()
    entry = {"kind": "training", "formatter": "lima", "rows": 16, "licence": "MIT"}
    checkout.config["datasets"]["talk"] = {
        **entry,
        "hub": {"repo": "small/talk", "file": "train.jsonl"},
    }
    checkout.environment = hub.environment(tmp_path_factory.mktemp("home"))
    return checkout


def train(checkout, *arguments):
    return checkout.tool("train", *arguments)


def checkpoint_of(done):
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("checkpoint: ")]
    return line.removeprefix("checkpoint: ")


@pytest.fixture(scope="module")
def trained(asking):
    """A finished call for response tuning of the hub's base."""
    asked = ("--model", "small/llama", "--data", "talk", "--learning-rate", "2e-5")
    return train(asking, "response", *asked, "--epochs", "1")


@pytest.mark.long
def test_a_model_and_data_of_the_hub_are_locked_fetched_and_finetuned(asking, trained):
    assert trained.returncode == 0, trained.stderr
    folder = asking.folder / checkpoint_of(trained)
    assert (folder / "model.safetensors").is_file()
    manifest = json.loads((folder.parent / "manifest.json").read_text())
    assert manifest["levels"] == {"base": "llama", "adaptation": "response", "seed": "1"}
    assert manifest["settings"]["training"]["learning_rate"] == 2e-5
    assert manifest["settings"]["training"]["epochs"] == 1
    assert manifest["facts"]["examples"] == 16
    # Nothing else was trained or asked.
    stages = {path.name for path in (asking.results / "nodes").iterdir()}
    assert stages == {"download", "fetch", "format", "finetune"}
    lock = yaml.safe_load((asking.folder / "config/lock.yaml").read_text())
    assert {"models/small/llama@main", "datasets/small/talk@main"} <= set(lock)


@pytest.mark.long
def test_asked_again_nothing_is_done_and_the_hub_is_not_needed(asking, trained, hub):
    before = len(hub.requests)
    asked = ("--model", "small/llama", "--data", "talk", "--learning-rate", "0.00002")
    again = train(asking, "response", *asked, "--epochs", "1")
    assert again.returncode == 0, again.stderr
    for rule in ("fetch", "download", "format", "finetune"):
        assert f"rule {rule}:" in trained.stderr or f"checkpoint {rule}:" in trained.stderr
        assert f"{rule}:" not in again.stderr
    assert checkpoint_of(again) == checkpoint_of(trained)
    assert len(hub.requests) == before


@pytest.mark.long
def test_a_checkpoint_is_judged_against_another_model(asking, trained):
    done = asking.tool(
        "evaluate", "--model", checkpoint_of(trained), "--reference", "organism-llama"
    )
    assert done.returncode == 0, done.stderr
    assert "win rate" in done.stdout
    assert "95 % interval" in done.stdout


def test_a_model_that_the_hub_has_not_ends_in_one_line(asking):
    done = train(asking, "instruction", "--model", "small/lama", "--data", "talk")
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()[-1:]
    assert "bases.lama" in line
    assert "small/lama" in line
    assert "Traceback" not in done.stderr


def test_a_task_without_data_ends_in_one_line(asking):
    done = train(asking, "task", "--model", "organism-llama")
    assert done.returncode == 1
    assert "DATA is missing" in done.stderr


def test_a_run_over_what_is_not_pinned_starts_no_job(asking):
    entry = {"kind": "training", "formatter": "lima", "rows": 16, "licence": "MIT"}
    asking.config["datasets"]["moved"] = {
        **entry,
        "hub": {"repo": "small/talk", "revision": "v2", "file": "train.jsonl"},
    }
    asking.config["adaptations"]["response"]["data"] = "moved"
    run = asking.run()
    asking.config["adaptations"]["response"]["data"] = "organism-lima"
    assert (run.status, run.jobs) == (1, {})
    assert "no job was started" in run.output
    assert (
        "datasets.moved.hub: 'small/talk/train.jsonl' at 'v2' is not in config/lock" in run.output
    )
