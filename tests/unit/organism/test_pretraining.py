"""Pretraining of the organism's bases, small, and the folders that are shipped."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from implicit_tuning.organism.bases import MIX, RECIPES, BaseRecipe
from implicit_tuning.organism.competence import measure_competence
from implicit_tuning.organism.corpus import corpus_sha256
from implicit_tuning.organism.pretraining import corpus_of, pack, pretrain, pretrain_base
from implicit_tuning.organism.tokenizer import train_tokenizer

SHIPPED = {
    name: Path(__file__).parents[3] / "resources/organism" / name.removeprefix("organism-")
    for name in RECIPES
}
TINY = BaseRecipe(
    "llama", seed=7, mix=MIX, vocabulary=320, hidden=32, layers=1, heads=2, feed_forward=32,
    context=96, steps=20, batch_sequences=4, warmup_steps=2,
)  # fmt: skip
FILES = {
    "README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
    "tokenizer_config.json",
}  # fmt: skip


def card_facts(folder):
    card = (folder / "README.md").read_text(encoding="utf-8")
    return json.loads(card.split("```json\n")[1].split("```")[0])


@pytest.mark.parametrize("architecture", ["llama", "olmo"])
def test_writes_a_folder_that_loads_and_that_a_second_run_repeats(tmp_path, architecture):
    recipe = replace(TINY, architecture=architecture)
    for run in ("one", "two"):
        pretrain_base("tiny", recipe, tmp_path / run, progress=False)
    assert {path.name for path in (tmp_path / "one").iterdir()} == FILES
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "one")
    assert (model.config.model_type, model.dtype) == (architecture, torch.bfloat16)


def test_pretraining_learns_and_the_card_says_what_it_was_trained_on(tmp_path):
    pretrain_base("tiny", TINY, tmp_path, progress=False)
    facts = card_facts(tmp_path)
    assert facts["final_loss"] < np.log(TINY.vocabulary)
    assert facts["recipe"] == asdict(TINY)
    assert facts["corpus_sha256"] == corpus_sha256(corpus_of(TINY))
    assert facts["competence"]["n"] == 208


def test_unknown_recipe_names_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="no recipe 'gpt'.*organism-llama"):
        pretrain("gpt", tmp_path)


def test_packing_ends_each_document_and_refuses_a_corpus_that_is_too_short():
    documents = ["a b c", "d e"] * 5
    tokenizer = train_tokenizer(documents, 300, "llama", 16)
    rows = pack(documents, tokenizer, 2, 8)
    stream = [token for text in documents for token in tokenizer(text)["input_ids"] + [1]]
    assert rows.tolist() == [stream[:8], stream[8:16]]
    with pytest.raises(ValueError, match="make it longer"):
        pack(documents, tokenizer, 100, 8)


@pytest.mark.parametrize("architecture, bos", [("llama", ["<s>"]), ("olmo", [])])
def test_tokenizer_splits_digits_and_puts_a_bos_in_front_where_the_model_has_one(architecture, bos):
    tokenizer = train_tokenizer(["1600 1600 eggs eggs"] * 9, 300, architecture, 16)
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("1600 eggs\n")["input_ids"])
    assert tokens[: len(bos) + 4] == [*bos, "1", "6", "0", "0"]
    assert tokenizer.decode(
        tokenizer("1600 \u00e9ggs\n")["input_ids"], skip_special_tokens=True
    ) == ("1600 \u00e9ggs\n")


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_base_is_the_recipe_on_the_corpus_of_this_code(name):
    facts = card_facts(SHIPPED[name])
    assert facts["recipe"] == asdict(RECIPES[name])
    assert facts["corpus_sha256"] == corpus_sha256(corpus_of(RECIPES[name]))


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_base_has_the_competence_of_its_card(name):
    model = AutoModelForCausalLM.from_pretrained(SHIPPED[name], dtype="float32")
    competence = measure_competence(model, AutoTokenizer.from_pretrained(SHIPPED[name]))
    recorded = card_facts(SHIPPED[name])["competence"]
    assert competence.overall >= 0.9
    # Another processor may round a close call the other way.
    assert competence.overall == pytest.approx(recorded["overall"], abs=2 / competence.n)


def test_shipped_bases_are_small():
    files = [path for folder in SHIPPED.values() for path in folder.iterdir()]
    assert {path.name for path in files} == FILES
    assert sum(path.stat().st_size for path in files) <= 10_000_000
