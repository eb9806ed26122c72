"""One run asked for on the command line: a valid config whose target is that node."""

from pathlib import Path

import pytest

from implicit_tuning.commands.single_run import (
    Finetune,
    request_evaluation,
    request_finetune,
    write_request,
)
from implicit_tuning.experiment.config import ConfigError
from implicit_tuning.experiment.config_reading import load_config, read_raw
from implicit_tuning.experiment.planners.all_nodes import build_plan
from implicit_tuning.nodes.digests import DigestMemory

LLAMA = Path("resources/organism/llama")


@pytest.fixture
def raw(repository, monkeypatch):
    """Function that reads a shipped config, with the repository as the working folder."""
    monkeypatch.chdir(repository)

    def read(name="config"):
        return read_raw([repository / f"config/{name}.yaml"])

    return read


@pytest.fixture
def node_of(repository, tmp_path):
    """Function that plans a request; returns its node, and what its target asks for."""

    def find(request):
        plan = build_plan(load_config(request.config, repository), DigestMemory(tmp_path / "d"))
        return plan, plan.find(request.stage, request.levels)

    return find


def asked(way, model="organism-llama", data=None, learning_rate=None, epochs=None, seed=1):
    return Finetune(way, str(model), data, learning_rate, epochs, seed)


@pytest.mark.parametrize(
    ("way", "data", "name", "target"),
    [
        ("instruction", None, "instruction", "train_ins"),
        ("response", None, "response", "train_resp"),
        ("task", "organism-gsm8k", "organism-gsm8k", "train_ins"),
        ("task", "organism-lima", "organism-lima", "train_ins"),
    ],
)
def test_the_target_asks_for_exactly_the_run(raw, node_of, way, data, name, target):
    request = request_finetune(raw(), asked(way, data=data, epochs=3, learning_rate=2e-5, seed=7))
    plan, node = node_of(request)
    assert request.target == target
    assert node.levels == ("organism-llama", name, "7")
    training = node.settings["training"]
    assert (training["epochs"], training["learning_rate"]) == (3, 2e-5)
    assert plan.stage("finetune") == [node]
    assert plan.way(name) == {"train_ins": "instruction", "train_resp": "response"}[target]


def test_a_run_that_the_config_has_too_is_the_same_node(raw, node_of, repository, tmp_path):
    whole = build_plan(load_config(raw(), repository), DigestMemory(tmp_path / "d"))
    for model in ("organism-llama", LLAMA, LLAMA.resolve()):
        _, node = node_of(request_finetune(raw(), asked("response", model)))
        assert node.plan_key == whole.find("finetune", node.levels).plan_key


def test_other_data_can_be_given_for_responses(raw, node_of):
    request = request_finetune(raw(), asked("response", data="organism-gsm8k"))
    plan, node = node_of(request)
    assert node.upstream["rows"].level("dataset") == "organism-gsm8k"
    assert node.upstream["rows"].settings["instructions"] == "blank"
    few = raw()
    few["adaptations"]["response"]["rows"] = 8
    _, node = node_of(request_finetune(few, asked("response", data="organism-gsm8k")))
    assert "exactly" not in node.upstream["rows"].settings
    assert plan.way("response") == "response"


def test_a_folder_that_no_config_names_is_a_base(raw, node_of, tmp_path, repository):
    other = tmp_path / "copy"
    other.mkdir()
    for file in (repository / LLAMA).iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    _, node = node_of(request_finetune(raw(), asked("instruction", other)))
    assert node.level("base") == "copy"
    assert node.upstream["base"].path == other


def test_a_model_of_the_hub_is_fetched_and_the_paper_s_keeps_its_name(raw, node_of):
    _, unknown = node_of(request_finetune(raw(), asked("instruction", "some/model")))
    assert unknown.level("base") == "model"
    assert unknown.upstream["base"].settings["repo"] == "some/model"
    known = request_finetune(raw("paper"), asked("response", "allenai/OLMo-7B-hf", epochs=10))
    _, node = node_of(known)
    assert node.level("base") == "olmo-7b"
    assert node.settings["training"]["learning_rate"] == 3e-6
    assert node.settings["training"]["epochs"] == 10


def test_a_task_needs_its_data(raw):
    with pytest.raises(ConfigError, match="DATA is missing: a single task is a data set"):
        request_finetune(raw(), asked("task"))


def test_a_finetune_needs_nothing_from_elsewhere_that_it_does_not_read(raw, node_of, repository):
    base = repository / LLAMA
    request = request_finetune(raw("paper"), asked("task", base, data="gsm8k", epochs=3))
    plan, node = node_of(request)
    assert {n.level("dataset") for n in plan.stage("download")} == {"gsm8k", "organism-evaluation"}
    assert not plan.stage("fetch")
    assert node.settings["training"]["epochs"] == 3


def test_where_epochs_are_selected_they_must_be_given(raw):
    with pytest.raises(ConfigError, match="EPOCHS is missing: the config selects them"):
        request_finetune(raw("paper"), asked("response", "llama-2-7b"))


def test_epochs_that_are_given_need_no_base_of_the_paper(raw, node_of, repository):
    paper = {**raw("paper"), "epochs": "paper"}
    request = request_finetune(paper, asked("response", repository / LLAMA, epochs=3))
    assert node_of(request)[1].settings["training"]["epochs"] == 3


def test_a_judge_that_is_a_base_keeps_it(raw, node_of):
    likely = {"kind": "mean_logprob", "base": "organism-olmo", "batch_size": 8}
    judged = {**raw(), "judge": "likely", "judges": {"likely": likely}}
    request = request_evaluation(judged, "organism-llama", "resources/organism/olmo", None)
    plan, node = node_of(request)
    assert node.upstream["judge"].path.name == "olmo"
    assert {n.level("base") for n in plan.stage("judge")} == {"organism-llama"}


def test_unknown_data_is_named_by_the_config_s_own_checks(raw, node_of):
    with pytest.raises(ConfigError, match="'organism-gsm8' is no data set; did you mean"):
        node_of(request_finetune(raw(), asked("task", data="organism-gsm8")))


def test_a_model_is_judged_against_another(raw, node_of):
    request = request_evaluation(raw(), "organism-llama", "resources/organism/olmo", None)
    plan, node = node_of(request)
    assert request.target == "judgements"
    assert node.upstream["outputs"].upstream["model"].path.name == "llama"
    assert node.upstream["references"].upstream["model"].path.name == "olmo"
    assert not plan.stage("finetune")


def test_asking_leaves_the_config_as_it_was(raw):
    before, given = raw(), raw()
    request_finetune(given, asked("response", data="organism-gsm8k", epochs=4))
    request_evaluation(given, "organism-llama", "organism-olmo", None)
    assert given == before


def test_a_request_is_written_under_a_name_of_its_content(raw, tmp_path):
    one, same, other = (
        write_request(request_finetune(raw(), asked("response", epochs=n)).config, tmp_path)
        for n in (2, 2, 3)
    )
    assert one == same != other
    assert read_raw([one])["adaptations"]["response"]["training"] == {"epochs": 2}
