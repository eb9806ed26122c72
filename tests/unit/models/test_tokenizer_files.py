"""A folder whose tokenizer is one file of sentencepiece."""

import pytest
import sentencepiece

from implicit_tuning.models.chat import ChatFormat, prompt_text, tokenize_prompt
from implicit_tuning.models.folder import load_tokenizer
from tiny_models import random_model

TEXTS = ["the quick brown fox", "a lazy dog jumps", "hello world, say less <|user|> |", "0 1 2 3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 50),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=90,
        model_type="bpe",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
    random_model(100).save_pretrained(folder)
    return folder


def test_its_tokens_are_those_of_sentencepiece(folder):
    tokenizer = load_tokenizer(folder)
    pieces = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))
    assert tokenizer.eos_token == "</s>" and len(tokenizer) == pieces.vocab_size()
    for text in TEXTS:
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == pieces.encode(text)


def test_prompts_are_made_with_it(folder):
    tokenizer = load_tokenizer(folder)
    prompt = tokenize_prompt("say less", tokenizer, ChatFormat())
    assert tokenizer.decode(prompt, skip_special_tokens=True).split() == (
        prompt_text("say less", ChatFormat()).split()
    )
