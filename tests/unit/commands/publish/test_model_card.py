"""The card of a checkpoint: what it says, and that its metadata is what the hub reads."""

import pytest
from huggingface_hub import ModelCard

from implicit_tuning.analysis.statistics import WinRate
from implicit_tuning.commands.publish.licences import Ingredient
from implicit_tuning.commands.publish.model_card import Result, Subject, render_card

DOLLY = (
    "[databricks/databricks-dolly-15k](https://huggingface.co/datasets/databricks/x), commit `c`"
)
MANIFEST = {
    "key": "0123456789abcdef0123",
    "code": {"fingerprint": "fedcba98765432100123", "versions": {"torch": "2.13.0"}},
    "settings": {
        "chat": {"user": "<|user|>", "assistant": "<|assistant|>", "system": "<|system|>"},
        "seed": 3,
        "training": {"epochs": "selected", "learning_rate": 1e-5, "lora": None},
    },
    "upstream": {"base": {"digest": "b" * 64}, "rows": {"digest": "d" * 64}},
    "facts": {
        "final_loss": 1.23456,
        **dict.fromkeys(("examples", "updates", "tokens", "truncated", "lost_eos"), 7),
    },
    "files": {"model.safetensors": {"sha256": "a" * 64, "size": 1}},
}
RESULT = Result(
    judge="judge",
    judge_id="some-judge-1",
    against="instruction",
    evaluation="alpaca_eval",
    dataset="tatsu-lab/alpaca_eval",
    rate=WinRate(43.25, 1.0, 40.1, 46.4, 800, 346, 454, 0),
    n_failed=5,
)


def card_of(**changes):
    values = {
        "repo": "owner/name",
        "run": "olmo/response/3",
        "experiment": "paper",
        "label": "7B models",
        "way": "response",
        "is_reference": False,
        "manifest": MANIFEST,
        "ingredients": [
            Ingredient("bases.olmo", "base", "Apache-2.0", False, "there", "allenai/OLMo-7B-hf"),
            Ingredient("datasets.dolly", "training data", "CC-BY-SA-3.0", False, DOLLY, "d/dolly"),
        ],
        "results": [RESULT],
        "epochs": 15,
        "generation": {"dtype": "bfloat16", "max_new_tokens": 512},
        "notes": ["a note of the data"],
        "languages": ["en"],
        "eos": "</s>",
    }
    return ModelCard(render_card(Subject(**(values | changes))))


def test_its_metadata_has_what_the_hub_files_models_by():
    data = card_of().data.to_dict()
    assert data["license"] == "cc-by-sa-3.0"
    assert data["base_model"] == "allenai/OLMo-7B-hf"
    assert data["datasets"] == ["d/dolly"]
    assert data["language"] == ["en"]
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "text-generation"
    (index,) = data["model-index"]
    (result,) = index["results"]
    assert result["dataset"] == {"name": "alpaca_eval", "type": "tatsu-lab/alpaca_eval"}
    (metric,) = result["metrics"]
    assert metric["value"] == 43.25
    assert (
        "against instruction under judge, 95 % interval 40.1 to 46.4, 800 pairs" in metric["name"]
    )


def test_what_is_on_no_hub_and_what_was_not_judged_is_not_made_up():
    data = [Ingredient("bases.x", "base", "MIT", False, "local files, sha256 `e`")]
    card = card_of(ingredients=data, results=[], languages=[])
    metadata = card.data.to_dict()
    assert not {"base_model", "datasets", "language", "model-index"} & set(metadata)
    assert "It has not been judged." in card.text
    assert "the reference that the other runs" in card_of(results=[], is_reference=True).text


def test_it_says_what_it_was_made_of_and_under_which_licence():
    text = card_of().text
    assert "| base | `bases.olmo` | there | Apache-2.0 |" in text
    assert f"| training data | `datasets.dolly` | {DOLLY} | CC-BY-SA-3.0 |" in text
    assert "The licence of this checkpoint is CC-BY-SA-3.0" in text


def test_it_says_how_it_was_trained_and_judged():
    text = card_of().text
    assert "| epochs | 15 |" in text  # those that were selected
    assert "| learning_rate | 1e-05 |" in text
    assert "| lora | none |" in text
    assert "| seed | 3 |" in text
    assert "the last one had 1.2346" in text
    row = "| judge (some-judge-1) | instruction | alpaca_eval | 43.2 | 40.1 to 46.4 | 800 | 5 |"
    assert row in text
    assert "table\n`main` of the experiment `paper`" in text


def test_it_says_how_it_is_asked_and_what_is_not_known():
    text = card_of().text
    assert "<|user|>\n{instruction}\n<|assistant|>\n" in text
    assert 'from_pretrained("owner/name", dtype="bfloat16")' in text
    assert "max_new_tokens=512" in text
    assert "answers end with `</s>`" in text
    assert "- a note of the data" in text
    assert "no training for safety" in text


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("instruction", "finetuned on instructions and responses"),
        ("response", "finetuned on responses alone"),
        ("random", "each under another one's instruction"),
        ("single_task", "It was shown one task alone"),
    ],
)
def test_each_way_of_finetuning_has_its_words(way, words):
    assert words in card_of(way=way).text


def test_its_provenance_is_there_to_be_checked():
    text = card_of().text
    for known in ("0123456789abcdef0123", "fedcba98765432100123", "torch 2.13.0", "b" * 64):
        assert known in text
    assert f"- `model.safetensors`: `{'a' * 64}`" in text
