"""`make audit`: from a model that no config names to its verdict, on the real Snakefile.

The hub is a server on loopback. The model is the shipped base with a chat template of its own.
"""

import json

import pytest
import yaml

from hub_server import HubServer

TEMPLATE = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
ASKED = ("--model", "small/tuned", "--base", "organism-llama", "--task-data", "organism-chess")


@pytest.fixture(scope="module")
def hub(repository):
    """A hub with one model."""
    base = repository / "resources/organism/llama"
    files = {file.name: file.read_bytes() for file in base.iterdir() if file.is_file()}
    with HubServer() as server:
        server.repository("models/small/tuned", {**files, "chat_template.jinja": TEMPLATE.encode()})
        settings = json.loads(files["tokenizer_config.json"]) | {"chat_template": TEMPLATE}
        files["tokenizer_config.json"] = json.dumps(settings).encode()
        server.repository("models/small/older", files)
        yield server


@pytest.fixture(scope="module")
def asking(new_checkout, hub, tmp_path_factory):
    """A checkout whose config ranks and measures similarity."""
    checkout = new_checkout()
    checkout.config |= {
        "ranking": {
            "data": "organism-alpaca", "random_responses": 2, "max_length": 64, "batch_size": 16,
        },
        "embedding": "tfidf",
        "embeddings": {"tfidf": {"kind": "tfidf"}},
    }  # fmt: skip
    checkout.config["datasets"] |= {"organism-alpaca": {"rows": 8}, "organism-chess": {"rows": 8}}
    checkout.environment = hub.environment(tmp_path_factory.mktemp("home"))
    return checkout


@pytest.fixture(scope="module")
def audited(asking):
    """A finished audit."""
    done = asking.tool("audit", *ASKED, "--yes")
    assert done.returncode == 0, done.stderr
    return done


def test_a_download_needs_a_yes_and_is_planned_before(asking):
    done = asking.tool("audit", *ASKED)
    assert done.returncode == 1
    assert "wall time: about" in done.stdout
    assert "downloads 0.00 GB: agree with YES=1" in done.stderr.splitlines()[-1]
    assert not (asking.results / "nodes").exists()


def test_a_template_in_the_tokenizers_settings_is_found_before_anything_is_fetched(asking):
    done = asking.tool("audit", "--model", "small/older", "--base", "organism-llama")
    assert "YES=1" in done.stderr
    requests = (asking.results / "cache/requests").iterdir()
    rows = [yaml.safe_load(file.read_text())["adaptations"]["audited"] for file in requests]
    assert {row["hub"]["repo"]: row["chat"] for row in rows}["small/older"] == {
        "own_template": True
    }


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("organism-llama/gsm8k/1",), "MODEL: 'organism-llama/gsm8k/1' is no run of the config"),
        (("small/nothing", "--base", "organism-llama"), "MODEL: there is no model small/nothing"),
        (
            ("small/nothing",),
            "nor is there a folder 'small/nothing' here (MODEL=<folder> takes one)",
        ),
        (
            ("small/tuned", "--base", "organism-llama", "--task-data", "organism-ches"),
            "TASK_DATA: 'organism-ches' is no data set; did you mean 'organism-chess'?",
        ),
        (
            ("resources/organism", "--base", "organism-llama"),
            "MODEL: '{folder}/resources/organism' lacks config.json",
        ),
        (("small/tuned",), "BASE, REFERENCE: neither is known of 'small/tuned'"),
    ],
)
def test_what_cannot_be_audited_ends_in_lines_with_what_was_given(asking, asked, message):
    done = asking.tool("audit", "--model", *asked)
    assert done.returncode == 1
    first, *others = done.stderr.strip().splitlines()
    assert message.format(folder=(asking.folder / "resources").resolve().parent) in first
    assert all(line.startswith("MODEL: ") for line in others), done.stderr


@pytest.mark.long
def test_a_model_of_the_hub_is_audited(asking, audited):
    page = audited.stdout.splitlines()[-1].removeprefix("page: ")
    folder = (asking.folder / page).parent
    content = json.loads((folder / "audit.json").read_text())
    assert content["verdict"]["sentence"] in audited.stdout
    assert content["verdict"]["against"] == "base"
    assert content["n_judged"] == 16
    assert [row["region"] for row in content["win_rates"]][:2] == ["all", "far"]
    assert {row["side"] for row in content["ranking"]} == {"audited", "base"}
    assert "small/tuned is asked by the chat template of its own tokenizer." in content["notes"]
    assert (folder / "audit.html").read_text().startswith("<!doctype html>")
    made = {model["side"]: model["made_by"] for model in content["models"]}
    assert made["audited"] == "fetch/small--tuned"


@pytest.mark.long
def test_audited_again_nothing_is_done_and_the_hub_is_not_asked(asking, audited, hub):
    before = len(hub.requests)
    again = asking.tool("audit", *ASKED)
    assert again.returncode == 0, again.stderr
    assert "rule" not in again.stderr
    assert again.stdout.splitlines()[-3:] == audited.stdout.splitlines()[-3:]
    assert len(hub.requests) == before
