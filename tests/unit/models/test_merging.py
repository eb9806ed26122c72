"""Adapters: merged they are what peft makes of them, and what does not fit is refused by name."""

import json
import shutil
from dataclasses import asdict

import pytest
import torch
from peft import (
    AdaLoraConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    LoraModel,
    PeftModel,
    PromptTuningConfig,
)
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, GenerationConfig

from implicit_tuning.models.adapters import UnusableAdapter, is_adapter, read_adapter, require_base
from implicit_tuning.models.folder import load_model, load_tokenizer
from implicit_tuning.models.merging import merge
from implicit_tuning.nodes.digests import source_sha256
from implicit_tuning.nodes.job import Job
from merge import merge_node
from tiny_adapters import change, train
from tiny_models import character_tokenizer, random_model, write_base

IDS = torch.arange(2, 60)[None]
KINDS = {
    "lora": LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=4),
    "dora": LoraConfig(target_modules=["q_proj"], r=4, use_dora=True, use_rslora=True),
    "whole embeddings": LoraConfig(
        target_modules=["q_proj"], r=2, modules_to_save=["embed_tokens", "lm_head"]
    ),
    "adalora": AdaLoraConfig(target_modules=["q_proj"], init_r=2, total_step=9, tinit=1, tfinal=1),
    "loha": LoHaConfig(target_modules=["q_proj"], r=2),
    "lokr": LoKrConfig(target_modules=["q_proj"], r=2),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def adapter(base, tmp_path):
    return train(base, KINDS["lora"], tmp_path / "adapter")


@torch.inference_mode()
def logits(model):
    return model.eval()(IDS).logits


def merged_logits(folder):
    return logits(load_model(folder, "float32", "eager"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_adapter_is_what_peft_makes_of_it(base, tmp_path, kind):
    adapter = train(base, KINDS[kind], tmp_path / "adapter")
    merge(base, adapter, tmp_path / "merged", "float32", None)
    expected = logits(PeftModel.from_pretrained(load_model(base, "float32", "eager"), adapter))
    assert torch.allclose(merged_logits(tmp_path / "merged"), expected, atol=1e-4)
    assert not torch.allclose(merged_logits(base), expected, atol=1e-1)


def test_a_merged_folder_is_a_whole_model_in_the_asked_precision(base, adapter, tmp_path):
    merge(base, adapter, tmp_path / "merged", "bfloat16", None)
    names = {path.name for path in (tmp_path / "merged").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not is_adapter(names)
    weights = load_file(tmp_path / "merged" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == "bfloat16"


def test_tokens_that_were_added_before_training_are_there(base, tmp_path):
    tokenizer = character_tokenizer()
    tokenizer.add_tokens(["<|im_end|>"])
    model = load_model(base, "float32", "eager")
    model.resize_token_embeddings(len(tokenizer))
    config = KINDS["whole embeddings"]
    adapter = train(base, config, tmp_path / "adapter", model)
    tokenizer.save_pretrained(adapter)
    merge(base, adapter, tmp_path / "merged", "float32", None)
    resized = load_model(base, "float32", "eager")
    resized.resize_token_embeddings(len(tokenizer))
    expected = logits(PeftModel.from_pretrained(resized, adapter))
    assert expected.shape[-1] == len(tokenizer) == len(character_tokenizer()) + 1
    assert torch.allclose(merged_logits(tmp_path / "merged"), expected, atol=1e-4)
    assert len(load_tokenizer(tmp_path / "merged")) == len(tokenizer)


BOTH = ["embed_tokens", "lm_head"]
INDICES = {"trainable_token_indices": [1, 70, 3]}
# An adapter of a base whose embeddings are shared, and whether they still are when it is merged.
OF_SHARED = {
    "layers": ({"target_modules": "all-linear"}, True),
    "embed": ({"target_modules": ["embed_tokens"]}, False),
    "head": ({"target_modules": ["lm_head"]}, False),
    "both": ({"target_modules": BOTH}, False),
    "embed, kept tied": ({"target_modules": ["embed_tokens"], "ensure_weight_tying": True}, True),
    "both, kept tied": ({"target_modules": BOTH, "ensure_weight_tying": True}, True),
    "dora of embed": ({"target_modules": ["embed_tokens"], "use_dora": True}, False),
    "tokens": ({"target_modules": ["q_proj"], **INDICES}, True),
    "tokens of embed": (
        {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [1, 70, 3]}},
        True,
    ),
    "tokens, kept tied": (
        {"target_modules": ["q_proj"], **INDICES, "ensure_weight_tying": True},
        True,
    ),
    "whole embed": ({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}, False),
    "whole head": ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, False),
    "whole both": ({"target_modules": ["q_proj"], "modules_to_save": BOTH}, False),
    "whole embed, kept tied": (
        {
            "target_modules": ["q_proj"],
            "modules_to_save": ["embed_tokens"],
            "ensure_weight_tying": True,
        },
        True,
    ),
    "layers more than once": (
        {"target_modules": ["q_proj"], "layer_replication": [[0, 2], [1, 2]]},
        True,
    ),
}


def expected_logits(base, adapter):
    """Of peft's own forward pass, of base and adapter beside each other."""
    return logits(PeftModel.from_pretrained(load_model(base, "float32", "eager"), adapter))


@pytest.mark.parametrize("kind", OF_SHARED)
def test_shared_embeddings_are_what_peft_computes_with(tmp_path, kind):
    base = write_base(tmp_path / "base", tied=True)
    keys, still_shared = OF_SHARED[kind]
    adapter = train(base, LoraConfig(r=2, **keys), tmp_path / "adapter")
    merge(base, adapter, tmp_path / "merged", "float32", None)
    expected = expected_logits(base, adapter)
    found = merged_logits(tmp_path / "merged")
    assert (found - expected).norm() <= 1e-5 * expected.norm()
    assert (merged_logits(base) - expected).norm() > 1e-2 * expected.norm()
    names = set(load_file(tmp_path / "merged" / "model.safetensors"))
    assert ("lm_head.weight" not in names) == still_shared


@pytest.mark.parametrize("keys", [{}, {"trainable_token_indices": [1, 70]}])
def test_tokens_trained_by_themselves_of_a_base_that_shares_nothing(base, tmp_path, keys):
    config = LoraConfig(r=2, target_modules=[*BOTH[bool(keys) :], "q_proj"], **keys)
    adapter = train(base, config, tmp_path / "adapter")
    merge(base, adapter, tmp_path / "merged", "float32", None)
    expected = expected_logits(base, adapter)
    assert (merged_logits(tmp_path / "merged") - expected).norm() <= 1e-5 * expected.norm()


def test_shared_embeddings_with_added_tokens(tmp_path):
    base = write_base(tmp_path / "base", tied=True)
    more = load_model(base, "float32", "eager")
    more.resize_token_embeddings(len(character_tokenizer()) + 5)
    config = LoraConfig(r=2, target_modules=["embed_tokens"])
    adapter = train(base, config, tmp_path / "adapter", more)
    merge(base, adapter, tmp_path / "merged", "float32", None)
    resized = load_model(base, "float32", "eager")
    resized.resize_token_embeddings(len(character_tokenizer()) + 5)
    expected = logits(PeftModel.from_pretrained(resized, adapter))
    assert (merged_logits(tmp_path / "merged") - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize(
    ("own", "template", "expected"),
    [
        (False, None, ("base", "base", "of the base")),
        (False, "own", ("base", "adapter", "own")),
        (True, None, ("adapter", "base", "of the base")),
        (True, "own", ("adapter", "adapter", "own")),
    ],
)
def test_tokenizer_and_template_are_the_adapters_where_it_has_them(
    base, adapter, tmp_path, own, template, expected
):
    with_template = shutil.copytree(base, tmp_path / "base")
    (with_template / "chat_template.jinja").write_text("of the base")
    if own:
        character_tokenizer(bos=True).save_pretrained(adapter)
    if template is not None:
        (adapter / "chat_template.jinja").write_text(template)
    report = merge(with_template, adapter, tmp_path / "merged", "float32", None)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert (report.tokenizer_of, report.template_of, tokenizer.chat_template) == expected
    assert (tokenizer.bos_token is not None) == own


def test_ends_of_the_base_stay_and_its_sampling_does_not(base, adapter, tmp_path):
    sampling = shutil.copytree(base, tmp_path / "base")
    GenerationConfig(do_sample=True, temperature=5.0, eos_token_id=[0, 7]).save_pretrained(sampling)
    merge(sampling, adapter, tmp_path / "merged", "float32", None)
    saved = GenerationConfig.from_pretrained(tmp_path / "merged")
    assert saved.eos_token_id == [0, 7]
    assert not saved.do_sample


def test_a_node_is_merged_as_its_settings_say(base, adapter, tmp_path):
    sources = {"base": base, "adapter": adapter}
    job = Job(
        settings={"dtype": "float32"},
        runtime={"repo": None},
        upstream={
            name: {"source": path, "digest": source_sha256(path)} for name, path in sources.items()
        },
        data=tmp_path / "data",
        partial=tmp_path,
        spending=tmp_path,
    )
    facts = asdict(merge_node(job))
    assert facts == {
        "kind": "LORA", "trained_on": str(base), "tokenizer_of": "base", "template_of": ""
    }  # fmt: skip
    assert (tmp_path / "data" / "model.safetensors").is_file()


# --- refused ------------------------------------------------------------------------------------


def assert_refused(base, adapter, destination, message, repo=None):
    with pytest.raises(UnusableAdapter, match=message) as error:
        merge(base, adapter, destination, "float32", repo)
    assert "\n" not in str(error.value)
    assert not destination.exists()


def test_a_kind_without_a_merge_is_refused_by_name(base, tmp_path):
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    adapter = train(base, config, tmp_path / "adapter")
    assert_refused(base, adapter, tmp_path / "merged", "kind 'PROMPT_TUNING', .* are LORA, ADALORA")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"task_type": "SEQ_CLS"}, "is an adapter for 'SEQ_CLS', not for 'CAUSAL_LM'"),
        ({"target_modules": ["c_attn"]}, "does not fit its base.*c_attn"),
        ({"r": 3}, "does not fit its base.*size mismatch"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(base, adapter, tmp_path, keys, message):
    change(adapter, **keys)
    assert_refused(base, adapter, tmp_path / "merged", message)


def test_pickled_and_missing_weights_are_refused(base, adapter, tmp_path):
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    assert_refused(base, adapter, tmp_path / "merged", r"in pickle \(adapter_model.bin\)")
    (adapter / "adapter_model.bin").unlink()
    assert_refused(base, adapter, tmp_path / "merged", "lacks the adapter's weights")
    (adapter / "adapter_config.json").write_text("[1")
    assert_refused(base, adapter, tmp_path / "merged", "is no JSON object")


def test_an_adapter_with_other_layers_than_the_base_is_refused(base, adapter, tmp_path):
    change(adapter, base_model_name_or_path="some/model")
    file = adapter / "adapter_model.safetensors"
    weights = load_file(file)
    fewer = {name: weight for name, weight in weights.items() if "layers.1" not in name}
    more = {name.replace("layers.1", "layers.2"): w.clone() for name, w in weights.items()}
    for other in (fewer, {**weights, **more}):
        save_file(other, file)
        assert_refused(base, adapter, tmp_path / "merged", "does not fit its base.*layers.[12]")


def test_weights_that_are_not_finite_are_refused(base, adapter, tmp_path):
    file = adapter / "adapter_model.safetensors"
    weights = load_file(file)
    weights[min(weights)][0, 0] = float("nan")
    save_file(weights, file)
    assert_refused(base, adapter, tmp_path / "merged", "NaNs detected")


def test_a_merge_that_changes_what_is_said_is_refused(base, adapter, tmp_path, monkeypatch):
    merge_and_unload = LoraModel.merge_and_unload

    def broken(self, **options):
        merged = merge_and_unload(self, **options)
        merged.model.layers[0].mlp.down_proj.weight *= 2
        return merged

    monkeypatch.setattr(LoraModel, "merge_and_unload", broken)
    assert_refused(base, adapter, tmp_path / "merged", "does something else than beside the base")


def test_the_base_of_another_adapter_is_refused(base, adapter, tmp_path):
    other = write_base(tmp_path / "other")
    model = random_model(len(character_tokenizer()), scale=0.2)
    model.save_pretrained(other)  # the same shapes
    assert_refused(other, adapter, tmp_path / "merged", "whose weights are not those of .*other")
    copy = shutil.copytree(base, tmp_path / "copy")
    merge(copy, adapter, tmp_path / "merged", "float32", None)


def test_a_base_of_another_name_is_refused(base, adapter, tmp_path):
    change(adapter, base_model_name_or_path="owner/model")
    message = "trained on 'owner/model'.* base is 'owner/other'"
    assert_refused(base, adapter, tmp_path / "merged", message, repo="owner/other")


@pytest.mark.parametrize(
    ("named", "repo", "fits"),
    [
        ("Owner/Model", "owner/model", True),
        ("gpt2", "openai-community/gpt2", True),
        ("/data/model", "owner/model", True),
        (None, "owner/model", True),
        ("owner/model", None, True),
        ("owner/model-chat", "owner/model", False),
        ("gpt2-xl", "openai-community/gpt2", False),
    ],
)
def test_names_of_the_hub_tell_the_base(named, repo, fits):
    if fits:
        require_base({"base_model_name_or_path": named}, repo)
    else:
        with pytest.raises(UnusableAdapter, match=f"trained on '{named}'.* base is '{repo}'"):
            require_base({"base_model_name_or_path": named}, repo)


def test_what_is_an_adapter():
    assert is_adapter({"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"})
    assert not is_adapter({"config.json", "adapter_config.json"})
    assert not is_adapter({"config.json"})


def test_a_good_adapter_is_read(adapter):
    assert read_adapter(adapter)["peft_type"] == "LORA"
