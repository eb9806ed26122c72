"""What is wrong with a model from elsewhere, told from its folder before any job starts."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from peft import LoraConfig, PromptTuningConfig

from implicit_tuning.experiment.config import ConfigError
from implicit_tuning.experiment.config_reading import load_config
from implicit_tuning.models import checks as model_checks
from tiny_adapters import change, train
from tiny_models import write_base

LORA = LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=2)


@pytest.fixture
def base(tmp_path):
    return write_base(tmp_path / "base")


@pytest.fixture
def adapter(base, tmp_path):
    return train(base, LORA, tmp_path / "adapter")


@pytest.fixture
def problems_of(repository):
    """Function that returns what is wrong with the default config and this row more."""
    raw = yaml.safe_load((repository / "config/config.yaml").read_text())

    def problems(kind="checkpoint", of_base=None, **row):
        row = {"kind": kind, "bases": ["organism-llama"], **row}
        changed = {**raw, "adaptations": {**raw["adaptations"], "mine": row}}
        if of_base is not None:
            changed["bases"] = {**raw["bases"], "organism-llama": of_base}
        try:
            load_config(changed, repository)
        except ConfigError as error:
            return error.problems
        return []

    return problems


def rewrite(file, **keys):
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))


def test_whole_models_and_adapters_are_fine(problems_of, base, adapter):
    assert problems_of(path=str(base)) == []
    found = problems_of(path=str(adapter), data="organism-gsm8k", of_base={"path": str(base)})
    assert found == []


@pytest.mark.parametrize(
    "change_weights", [lambda data: data[:-1] + b"x", lambda data: data + b"x"]
)
def test_an_adapter_of_another_base_on_this_machine_is_refused(
    problems_of, base, adapter, tmp_path, change_weights
):
    other = Path(shutil.copytree(base, tmp_path / "other"))
    entry = {"path": str(other)}
    assert problems_of(path=str(adapter), of_base=entry) == []
    weights = other / "model.safetensors"
    weights.write_bytes(change_weights(weights.read_bytes()))
    (problem,) = problems_of(path=str(adapter), of_base=entry)
    assert problem.startswith("adaptations.mine.path: of 'organism-llama': ")
    assert f"whose weights are not those of {other}" in problem


def test_of_large_bases_sizes_alone_are_compared(problems_of, base, adapter, tmp_path, monkeypatch):
    monkeypatch.setattr(model_checks, "HASHED_AT_ONCE", 0)
    other = Path(shutil.copytree(base, tmp_path / "other"))
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert problems_of(path=str(adapter), of_base={"path": str(other)}) == []
    weights.write_bytes(weights.read_bytes() + b"x")
    assert len(problems_of(path=str(adapter), of_base={"path": str(other)})) == 1


def test_a_base_named_by_no_text_is_refused(problems_of, base, adapter):
    rewrite(adapter / "adapter_config.json", base_model_name_or_path=7)
    (problem,) = problems_of(path=str(adapter), of_base={"path": str(base)})
    assert "base_model_name_or_path of adapter_config.json is 7, no text" in problem


@pytest.mark.parametrize(
    ("names", "is_fine"),
    [
        (["GPT2LMHeadModel"], True),
        (["Gemma3ForConditionalGeneration"], False),
        (["BertForSequenceClassification"], False),
        (["LlamaModel"], False),
        (["T5ForConditionalGeneration"], False),
        (["MyModel", "LlamaForCausalLM"], True),
    ],
)
def test_something_that_writes_no_text_is_refused(problems_of, base, names, is_fine):
    rewrite(base / "config.json", architectures=names)
    problems = problems_of(path=str(base))
    if is_fine:
        assert problems == []
    else:
        (problem,) = problems
        assert problem.startswith(
            f"adaptations.mine.path: '{base}' is no causal language model but"
        )
        assert names[0] in problem


def test_a_model_for_images_too_is_fine_with_its_part_for_text(problems_of, base):
    names = ["Gemma3ForConditionalGeneration"]
    rewrite(base / "config.json", architectures=names, text_config={"hidden_size": 8})
    assert problems_of(path=str(base)) == []


def test_pickled_weights_are_named(problems_of, base):
    (base / "model.safetensors").rename(base / "pytorch_model-00001-of-00001.bin")
    (problem,) = problems_of(path=str(base))
    assert "has its weights in pickle" in problem


def test_all_that_is_missing_is_named_at_once(problems_of, base):
    for name in ("tokenizer.json", "model.safetensors"):
        (base / name).unlink()
    problems = problems_of(path=str(base))
    assert len(problems) == 2
    assert "lacks a tokenizer" in problems[0] and "lacks safetensors" in problems[1]


def test_a_config_that_is_no_json_is_named(problems_of, base):
    (base / "config.json").write_text("{")
    (problem,) = problems_of(path=str(base))
    assert "config.json' is no JSON object" in problem


def test_a_model_with_an_adapter_beside_it_is_refused(problems_of, base, adapter):
    shutil.copy(adapter / "adapter_config.json", base)
    (problem,) = problems_of(path=str(base))
    assert "has a model and an adapter" in problem


def test_an_adapter_is_no_base(problems_of, base, adapter):
    (problem,) = problems_of(path=str(base), of_base={"path": str(adapter)})
    assert problem.startswith(f"bases.organism-llama.path: '{adapter}' is an adapter, no model")


def test_adapters_that_cannot_be_merged_are_refused(problems_of, base, adapter, tmp_path):
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    (problem,) = problems_of(path=str(adapter))
    assert problem.startswith("adaptations.mine.path: ") and "in pickle" in problem
    prompts = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    (problem,) = problems_of(path=str(train(base, prompts, tmp_path / "prompts")))
    assert "kind 'PROMPT_TUNING'" in problem


def test_an_adapter_of_another_base_of_the_hub_is_refused(problems_of, adapter):
    change(adapter, base_model_name_or_path="owner/model-chat")
    (problem,) = problems_of(path=str(adapter), of_base={"hub": {"repo": "owner/model"}})
    assert "trained on 'owner/model-chat'" in problem and "base is 'owner/model'" in problem
    assert problems_of(path=str(adapter)) == [], "of a folder nobody knows the name"


# --- templates of their own ---------------------------------------------------------------------

OWN = {"own_template": True}


def test_an_own_template_must_be_there(problems_of, base, repository):
    (problem,) = problems_of(path=str(base), chat=OWN)
    assert problem.startswith(f"adaptations.mine.chat.own_template: True: '{base}' has no chat")
    (base / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert problems_of(path=str(base), chat=OWN) == []
    (base / "chat_template.jinja").unlink()
    rewrite(base / "tokenizer_config.json", chat_template="{{ messages[0].content }}")
    assert problems_of(path=str(base), chat=OWN) == []


def test_an_adapter_may_have_the_template_of_its_base(problems_of, base, adapter):
    (problem,) = problems_of(path=str(adapter), chat=OWN, of_base={"path": str(base)})
    assert "has no chat template" in problem
    (base / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert problems_of(path=str(adapter), chat=OWN, of_base={"path": str(base)}) == []


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"kind": "finetune", "data": "organism-gsm8k"}, "only a model from elsewhere"),
        ({"kind": "rules", "rules": ["eos"]}, "only a model from elsewhere"),
        ({"kind": "none"}, "only a model from elsewhere"),
    ],
)
def test_only_a_checkpoint_has_a_template_of_its_own(problems_of, row, message):
    (problem,) = problems_of(**row, chat=OWN)
    assert problem.startswith("adaptations.mine.chat.own_template: True: ") and message in problem
    assert problems_of(**row, chat={"own_template": False}) == []


def test_tags_and_own_template_exclude_each_other(problems_of, base):
    (base / "chat_template.jinja").write_text("{{ messages[0].content }}")
    (problem,) = problems_of(path=str(base), chat={**OWN, "user": "<|me|>"})
    assert problem.startswith("adaptations.mine.chat.user: ")


def test_the_data_of_a_checkpoint_must_be_a_training_set(problems_of, base):
    (problem,) = problems_of(path=str(base), data="organism-gsm9k")
    assert "'organism-gsm9k' is no data set" in problem
    (problem,) = problems_of(path=str(base), data="organism-evaluation")
    assert "is a data set of kind 'evaluation', not 'training'" in problem
