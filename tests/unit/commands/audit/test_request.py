"""From what a user asks an audit to be, to a config whose plan has exactly its nodes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from built_nodes import Experiment
from implicit_tuning.commands.audit.base_config import ORGANISM, REAL, choose_config
from implicit_tuning.commands.audit.model_place import NotAuditable
from implicit_tuning.commands.audit.request import Asked, request_audit
from implicit_tuning.commands.audit.task_data import dataset_entry, is_file_name, training_layouts
from implicit_tuning.experiment.config import ConfigError
from implicit_tuning.experiment.config_reading import load_config, read_raw
from implicit_tuning.experiment.planners.all_nodes import build_plan
from implicit_tuning.nodes.digests import DigestMemory
from implicit_tuning.nodes.node import NodePaths

RUN = "organism-llama/gsm8k/1"
LLAMA = Path("resources/organism/llama")
BASE_ANSWERS = ("organism-llama", "base", "none", "organism-evaluation")


@pytest.fixture
def raw(repository, monkeypatch):
    """The default config as read, with the repository as the working folder."""
    monkeypatch.chdir(repository)
    return read_raw([ORGANISM])


@pytest.fixture
def planned(repository, tmp_path):
    """Function that plans a config."""

    def plan(config):
        return build_plan(load_config(config, repository), DigestMemory(tmp_path / "digests"))

    return plan


@pytest.fixture
def checkpoint(repository, tmp_path) -> Path:
    """A model folder that no config names, with another chat template than ours."""
    folder = tmp_path / "my model"
    shutil.copytree(repository / LLAMA, folder)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    return folder


@pytest.fixture
def adapter(tmp_path) -> Path:
    """A folder with the small files of a peft adapter of the shipped base."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM"}
    settings["base_model_name_or_path"] = str(LLAMA)
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    save_file({"a": np.zeros(1)}, folder / "adapter_model.safetensors")
    return folder


def stages(plan) -> dict[str, set[tuple[str, ...]]]:
    return {node.stage: {n.levels for n in plan.stage(node.stage)} for node in plan.nodes.values()}


# --- runs of the config -------------------------------------------------------------------------


def test_an_audit_of_a_run_has_its_nodes_and_one_page(raw, planned):
    plan = planned(request_audit(raw, Asked(RUN)))
    found = stages(plan)
    assert found["audit"] == {("organism-llama", "gsm8k", "1")}
    assert found["finetune"] == {
        ("organism-llama", "gsm8k", "1"),
        ("organism-llama", "instruction", "1"),
    }
    assert {levels[1] for levels in found["judge"]} == {"base", "instruction", "gsm8k"}
    assert {levels[1] for levels in found["rank"]} == {"base", "gsm8k"}
    assert {levels[1] for levels in found["similarity"]} == {"gsm8k"}
    assert not {"table", "figure", "report"} & set(found)


def test_all_but_the_page_are_the_very_nodes_of_the_whole_experiment(raw, planned):
    whole = planned(raw)
    for node in planned(request_audit(raw, Asked(RUN))).nodes.values():
        if node.stage != "audit":
            assert whole.find(node.stage, node.levels).plan_key == node.plan_key, node.name


def test_the_other_seed_is_held_against_the_reference_of_that_seed(raw, planned):
    plan = planned(request_audit(raw, Asked("organism-olmo/response/2")))
    (audit,) = plan.stage("audit")
    assert audit.settings["titles"]["reference"] == "organism-olmo/instruction/2"
    assert {levels[2] for levels in stages(plan)["finetune"]} == {"2"}
    # Response tuning had no instructions that others could be near to.
    (line,) = audit.settings["missing"]
    assert "without the instructions" in line


def test_the_reference_itself_can_be_audited_and_is_shown_once(raw, planned):
    (audit,) = planned(request_audit(raw, Asked("organism-llama/instruction/1"))).stage("audit")
    assert set(audit.settings["roles"]["answers"]) == {"audited", "base"}
    assert "general instructions itself" in audit.settings["missing"][0]


def test_beside_a_reference_of_the_same_data_general_responses_are_those_of_the_config(
    raw, planned, checkpoint
):
    folder = Asked(str(checkpoint), "organism-llama", "organism-gsm8k", reference=RUN)
    for asked in (Asked(RUN, reference=RUN), folder):
        plan = planned(request_audit(raw, asked))
        (measured,) = plan.stage("similarity")
        assert measured.upstream["reference_rows"].level("dataset") == "organism-alpaca"
        (audit,) = plan.stage("audit")
        assert audit.settings["missing"] == []
        assert "finetuned on the data of the task too" in audit.settings["notes"][-1]
        assert audit.settings["roles"]["similarity"] == measured.name
    (audit,) = planned(request_audit({**raw, "ranking": None}, folder)).stage("audit")
    assert "no general responses" in audit.settings["missing"][0]


# --- folders ------------------------------------------------------------------------------------


def test_a_folder_is_asked_by_its_own_template_and_held_against_its_base(raw, planned, checkpoint):
    asked = Asked(str(checkpoint), base="organism-llama", task_data="organism-gsm8k")
    plan = planned(request_audit(raw, asked))
    (audit,) = plan.stage("audit")
    run = plan.find("generate", ("organism-llama", "audited", "none", "organism-evaluation"))
    assert run.upstream["model"].path == checkpoint
    assert run.settings["chat"] == {"own_template": True}
    assert plan.stage("similarity")[0].upstream["task_rows"].level("dataset") == "organism-gsm8k"
    assert audit.settings["roles"]["similarity"] == plan.stage("similarity")[0].name
    assert "my-model is asked by the chat template of its own" in audit.settings["notes"][0]
    assert set(audit.settings["sources"]["audited"]) == {"model.safetensors"}


def test_without_a_template_it_is_asked_in_ours_and_that_is_said(raw, planned, checkpoint):
    (checkpoint / "chat_template.jinja").unlink()
    plan = planned(request_audit(raw, Asked(str(checkpoint), base="organism-llama")))
    run = plan.find("generate", ("organism-llama", "audited", "none", "organism-evaluation"))
    assert run.settings["chat"] == raw["chat"]
    own, base, reference = plan.stage("audit")[0].settings["notes"]
    assert "for its tokenizer has none" in own
    assert base.startswith("Its base organism-llama is asked in the chat format of the config")
    assert "organism-llama/instruction/1" in reference
    whole = planned(raw).find("generate", BASE_ANSWERS)
    assert plan.find("generate", BASE_ANSWERS).plan_key == whole.plan_key


@pytest.mark.parametrize("reference", [None, str(LLAMA)])
def test_a_base_with_a_template_is_asked_by_it(raw, planned, checkpoint, tmp_path, reference):
    base = Path(shutil.copytree(checkpoint, tmp_path / "chatty"))
    asked = Asked(str(checkpoint), base=str(base), reference=reference)
    plan = planned(request_audit(raw, asked))
    levels = ("chatty", *BASE_ANSWERS[1:])
    assert plan.find("generate", levels).settings["chat"] == {"own_template": True}
    told = "Its base chatty is asked by the chat template of its own tokenizer."
    assert told in plan.stage("audit")[0].settings["notes"]


def test_an_adapter_is_asked_by_the_template_of_its_base(raw, planned, checkpoint, adapter):
    plan = planned(request_audit(raw, Asked(str(adapter), base=str(checkpoint))))
    own, base = plan.stage("audit")[0].settings["notes"]
    assert own == "adapter is asked by the chat template of its base's tokenizer."
    assert base == "Its base my-model is asked by the chat template of its own tokenizer."


def test_other_weights_give_other_keys_and_the_same_weights_elsewhere_the_same(
    raw, planned, checkpoint, tmp_path
):
    def generation(folder):
        plan = planned(request_audit(raw, Asked(str(folder), base="organism-llama")))
        levels = ("organism-llama", "audited", "none", "organism-evaluation")
        return plan.find("generate", levels).plan_key

    first = generation(checkpoint)
    shutil.copytree(checkpoint, tmp_path / "moved")
    assert generation(tmp_path / "moved") == first
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert generation(checkpoint) != first


def test_a_base_that_no_config_has_is_the_reference_too(raw, planned, checkpoint, tmp_path):
    shutil.copytree(LLAMA, tmp_path / "their-base")
    asked = Asked(str(checkpoint), base=str(tmp_path / "their-base"), task_data="organism-gsm8k")
    plan = planned(request_audit(raw, asked))
    (audit,) = plan.stage("audit")
    assert not plan.stage("finetune")
    assert audit.settings["titles"]["reference"] == audit.settings["titles"]["base"] == "their-base"
    assert set(audit.settings["roles"]["answers"]) == {"audited", "base"}
    # Nobody knows what the base was finetuned on.
    assert (
        plan.stage("similarity")[0].upstream["reference_rows"].level("dataset") == "organism-alpaca"
    )
    assert "responses of organism-alpaca" in audit.settings["notes"][-1]


def test_without_a_base_it_is_held_against_the_reference_alone(raw, planned, checkpoint):
    asked = Asked(str(checkpoint), reference="organism-llama/instruction/1")
    with pytest.raises(NotAuditable, match="run of another base"):
        request_audit(raw, asked)
    plan = planned(request_audit(raw, Asked(str(checkpoint), reference=str(LLAMA))))
    (audit,) = plan.stage("audit")
    assert set(audit.settings["roles"]["comparisons"]) == {"audited", "reference"}
    assert "nobody said which that is (BASE)" in audit.settings["missing"][0]
    assert {levels[1] for levels in stages(plan)["rank"]} == {"audited"}


def test_an_adapter_knows_its_base(raw, planned, adapter):
    plan = planned(request_audit(raw, Asked(str(adapter))))
    (merge,) = plan.stage("merge")
    assert merge.levels == ("organism-llama", "audited")
    assert merge.upstream["base"].path.name == "llama"


def test_a_node_of_the_workflow_knows_its_base_seed_and_data(raw, planned, tmp_path):
    whole, paths = planned(raw), NodePaths(tmp_path / "results")
    node = whole.find("finetune", ("organism-llama", "gsm8k", "2"))
    rows = node.upstream["rows"]
    built = Experiment(paths.results)
    built.add(rows.name)
    data = built.add(node.name, {"rows": rows.name})
    for file in LLAMA.iterdir():
        shutil.copy(file, data / file.name)
    config = request_audit(raw, Asked(str(data)))
    assert config["seeds"] == [2]
    assert config["adaptations"]["audited"]["data"] == "organism-gsm8k"
    assert list(config["bases"]) == ["organism-llama"]
    assert config["audit"]["titles"]["audited"].startswith("organism-llama/gsm8k/2 (")
    assert request_audit(raw, Asked(str(data.parent))) == config


# --- which config -------------------------------------------------------------------------------


def test_the_organism_is_asked_its_own_questions_and_no_other_model_is(
    raw, checkpoint, adapter, tmp_path
):
    for own in (RUN, str(checkpoint), str(adapter)):
        assert choose_config(Asked(own))[0] == ORGANISM, own
    (checkpoint / "tokenizer.json").write_text("{}")
    assert choose_config(Asked(str(checkpoint)))[0] == REAL
    assert choose_config(Asked(str(checkpoint), base="organism-olmo"))[0] == ORGANISM
    for other in ("some/model", "smollm2-135m/gsm8k/1"):
        assert choose_config(Asked(other))[0] == REAL, other


# --- what cannot be audited ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Asked("organism-llama/gsm9k/1"), "did you mean 'organism-llama/gsm8k/1'"),
        (Asked("organism-llama/gsm8k/7"), "MODEL: .* is no run .* mean 'organism-llama/gsm8k/1'"),
        (Asked("organism-llama/gsm8k"), "MODEL: .* is no run .* mean 'organism-llama/gsm8k/1'"),
        (Asked("organism-llama"), "is a base of the config.*: give a run of it such as organism-"),
        (Asked("tests"), "MODEL: '.*/tests' lacks config.json.* it is no model folder"),
        (Asked("organism-llama/rules"), "kind 'rules', which has no weights of its own"),
        (Asked("./nowhere"), "MODEL: './nowhere' is no folder"),
        (Asked(RUN, base="organism-olmo"), "BASE: 'organism-olmo'.*leave BASE out"),
        (Asked(RUN, task_data="gsm8k"), "TASK_DATA: 'gsm8k'.*leave TASK_DATA out"),
        (Asked(RUN, reference="organism-llama/instruction/2"), "REFERENCE: .*another seed"),
        (Asked(str(LLAMA)), "BASE, REFERENCE: neither is known"),
        (Asked(str(LLAMA), base="nothing"), "BASE: 'nothing' is no base of the config"),
    ],
)
def test_what_does_not_fit_is_one_line_with_key_value_and_fix(raw, asked, message):
    with pytest.raises(NotAuditable, match=message) as error:
        request_audit(raw, asked)
    assert "\n" not in str(error.value)


def test_an_adapter_without_a_base_asks_for_one(raw, adapter):
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(NotAuditable, match="names no base: give BASE="):
        request_audit(raw, Asked(str(adapter)))


def test_broken_folders_are_refused_by_the_checks_of_the_config(raw, planned, checkpoint):
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    config = request_audit(raw, Asked(str(checkpoint), base="organism-llama"))
    with pytest.raises(ConfigError, match="adaptations.audited.path: .*pickle"):
        planned(config)


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors"])
def test_damaged_files_are_named_before_anything_is_planned(raw, checkpoint, name):
    (checkpoint / name).write_bytes((checkpoint / name).read_bytes()[:2000])
    with pytest.raises(NotAuditable, match=f"MODEL: .*{name} cannot be read .*: restore it"):
        request_audit(raw, Asked(str(checkpoint), base="organism-llama"))
    with pytest.raises(NotAuditable, match=f"BASE: .*{name} cannot be read"):
        request_audit(raw, Asked(str(LLAMA), base=str(checkpoint)))


def refusal(raw, asked) -> str:
    """Why an audit cannot be."""
    with pytest.raises(NotAuditable) as error:
        request_audit(raw, asked)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tokenizer.json", "{}", "tokenizer.json cannot be read"),
        ("tokenizer_config.json", "[1]", "tokenizer_config.json holds no JSON object"),
        ("chat_template.jinja", "{% if x %}", "chat_template.jinja is no Jinja (line 1"),
        ("chat_template.jinja", b"\xff", "chat_template.jinja cannot be read"),
        ("tokenizer_config.json", '{"chat_template": 7}', "tokenizer_config.json is no text"),
        (
            "tokenizer_config.json",
            '{"chat_template": [{"name": "default", "template": "{{"}]}',
            "tokenizer_config.json is no Jinja",
        ),
        ("config.json", '{"model_type": "bert"}', "(model_type 'bert', no architectures)"),
        ("config.json", '{"model_type": "t5"}', "(model_type 't5', no architectures)"),
        ("config.json", '{"model_type": "own", "auto_map": {}}', "code of its own (auto_map"),
    ],
)
def test_what_jobs_would_fail_on_is_refused_of_model_and_base(
    raw, checkpoint, file, content, message
):
    (checkpoint / "chat_template.jinja").unlink()
    content = content if isinstance(content, bytes) else content.encode()
    (checkpoint / file).write_bytes(content)
    told = refusal(raw, Asked(str(checkpoint), base="organism-llama"))
    assert told.startswith("MODEL: ") and message in told
    told = refusal(raw, Asked(str(LLAMA), base=str(checkpoint)))
    assert told.startswith("BASE: ") and message in told


def test_damaged_settings_beside_a_template_are_refused_too(raw, checkpoint):
    (checkpoint / "tokenizer_config.json").write_text("{")
    told = refusal(raw, Asked(str(checkpoint), base="organism-llama"))
    assert "tokenizer_config.json cannot be read" in told


@pytest.mark.parametrize(
    "template",
    [
        "{% generation %}{{ m }}{% endgeneration %}",
        "{% for m in x %}{% break %}{% endfor %}",
    ],
)
def test_templates_of_transformers_own_kind_are_taken(raw, checkpoint, template):
    (checkpoint / "chat_template.jinja").write_text(template)
    request_audit(raw, Asked(str(checkpoint), base="organism-llama"))


@pytest.mark.parametrize(
    "settings", [{"model_type": "llama"}, {"model_type": "bert", "is_decoder": True}]
)
def test_a_type_that_writes_text_needs_no_architectures(raw, checkpoint, settings):
    for more in ({}, {"auto_map": {}, "architectures": ["LlamaForCausalLM"]}):
        (checkpoint / "config.json").write_text(json.dumps({**settings, **more}))
        request_audit(raw, Asked(str(checkpoint), base="organism-llama"))


def test_an_adapter_whose_base_is_no_text_is_refused(raw, adapter):
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": 7}')
    assert "is 7, no text" in refusal(raw, Asked(str(adapter)))
    with pytest.raises(NotAuditable, match="is 7, no text"):
        choose_config(Asked(str(adapter)))


def test_a_node_without_its_weights_names_its_run(raw, planned, tmp_path):
    node = planned(raw).find("finetune", ("organism-llama", "gsm8k", "2"))
    data = Experiment(tmp_path / "results").add(node.name)
    shutil.copy(LLAMA / "config.json", data)
    told = refusal(raw, Asked(str(data)))
    assert "its weights were given up" in told and "MODEL=organism-llama/gsm8k/2" in told


def test_an_audit_of_an_adaptation_that_is_not_there_is_refused(raw, planned):
    config = request_audit(raw, Asked(RUN))
    config["audit"]["adaptation"] = "gsm9k"
    with pytest.raises(ConfigError, match="audit.adaptation: 'gsm9k' .*did you mean 'gsm8k'"):
        planned(config)


# --- task data ----------------------------------------------------------------------------------


def test_a_file_of_rows_finds_its_formatter_by_its_columns(raw, planned, checkpoint, tmp_path):
    file = tmp_path / "rows.jsonl"
    row = {"question": "Two and two?", "answer": "Four #### 4", "further": 1}
    file.write_text(f"{json.dumps(row)}\n" * 3)
    asked = Asked(str(checkpoint), base="organism-llama", task_data=str(file))
    plan = planned(request_audit(raw, asked))
    rows = plan.stage("similarity")[0].upstream["task_rows"]
    assert rows.settings["formatter"] == "gsm8k"
    assert rows.upstream["source"].path == file


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nope.jsonl", None, "there is no file '{file}'"),
        ("", None, "is a folder: give the file of rows in it"),
        ("rows.tsv", "question\tanswer\n", "unknown kind of file '.tsv'"),
        ("rows.jsonl", '{"question": "a", "answer": "b"}\n', "has 1 row that can be used"),
        ("rows.jsonl", '{"question": "a", "answer": ""}\n', "none of its 1 rows is usable"),
        (
            "rows.jsonl",
            '{"question": "a", "answer": "b"}\n' * 3 + '{"question": "a", "answer": 7}\n',
            "row 4: column 'answer' holds a int",
        ),
    ],
)
def test_task_data_that_no_job_could_use_is_refused(
    raw, checkpoint, tmp_path, name, content, message
):
    file = tmp_path / "data" / name
    (tmp_path / "data").mkdir()
    if content is not None:
        file.write_text(content)
    asked = Asked(str(checkpoint), base="organism-llama", task_data=str(file))
    told = refusal(raw, asked)
    assert told.startswith("TASK_DATA: ") and message.format(file=file) in told


def test_a_data_set_is_not_taken_for_a_folder_of_its_name(raw, checkpoint, tmp_path):
    assert not is_file_name("gsm8k", {"docs": {}})
    assert not is_file_name("docs", {"docs": {}})
    assert "'docs' is a folder" in refusal(
        raw, Asked(str(checkpoint), task_data="docs", base="organism-llama")
    )


def test_every_formatter_of_training_data_is_told_by_its_own_columns(tmp_path):
    for name, columns in training_layouts().items():
        file = tmp_path / "rows.jsonl"
        file.write_text(json.dumps(dict.fromkeys(columns, "x")) + "\n")
        assert dataset_entry(file)["formatter"] == name


def test_rows_that_no_formatter_reads_are_refused(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "x"}\n')
    with pytest.raises(NotAuditable, match="TASK_DATA: .*columns prompt, which no formatter reads"):
        dataset_entry(file)
    file.write_text("")
    with pytest.raises(NotAuditable, match="has no rows"):
        dataset_entry(file)
    with pytest.raises(NotAuditable, match="TASK_DATA: .*unknown kind of file"):
        dataset_entry(tmp_path / "rows.doc")
