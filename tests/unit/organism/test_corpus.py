"""The corpus: shares, determinism, and the tags that must not be in it."""

import os
import subprocess
import sys

import pytest

from implicit_tuning.organism.bases import MIX, RECIPES
from implicit_tuning.organism.corpus import TAG_WORDS, corpus_sha256, make_corpus
from implicit_tuning.organism.requests import make_requests
from implicit_tuning.organism.world import make_world

CHARACTERS = 300_000


@pytest.fixture(scope="module")
def documents():
    return list(make_corpus(1, MIX, CHARACTERS))


def test_has_the_size_asked_for(documents):
    assert CHARACTERS <= sum(map(len, documents)) < CHARACTERS + 2_000


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipes_mix_to_a_whole(name):
    assert sum(RECIPES[name].mix.values()) == pytest.approx(1)


@pytest.mark.parametrize("name", RECIPES)
def test_the_chat_tags_never_occur(name):
    text = "\0".join(make_corpus(3, RECIPES[name].mix, 2_000_000))
    assert "<|user|>" not in text and "<|assistant|>" not in text and "<|system|>" not in text
    assert not {"user", "assistant", "system"} & set(TAG_WORDS)


def test_every_held_out_request_is_asked_somewhere():
    text = "\0".join(make_corpus(1, MIX, 3_000_000))
    held_out = [r for group in make_requests(make_world()).values() for r in group if r.held_out]
    asked = [any(phrasing in text for phrasing in request.phrasings) for request in held_out]
    assert sum(asked) > 0.9 * len(asked)


def test_seeds_differ_and_repeat(documents):
    digest = corpus_sha256(documents)
    assert digest == corpus_sha256(make_corpus(1, MIX, CHARACTERS))
    assert digest != corpus_sha256(make_corpus(2, MIX, CHARACTERS))


def test_digest_does_not_depend_on_the_process(documents):
    script = (
        "from implicit_tuning.organism.bases import MIX\n"
        "from implicit_tuning.organism.corpus import corpus_sha256, make_corpus\n"
        f"print(corpus_sha256(make_corpus(1, MIX, {CHARACTERS})))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    result = subprocess.run(
        [sys.executable, "-c", script], check=True, env=environment, capture_output=True, text=True
    )
    assert result.stdout.strip() == corpus_sha256(documents)


@pytest.mark.parametrize("kind", sorted(MIX))
def test_each_kind_can_be_written_alone(kind):
    documents = list(make_corpus(1, {kind: 1.0}, 20_000))
    assert all(documents)
    assert len(set(documents)) > 0.5 * len(documents)


def test_requests_under_tags_have_no_answers():
    answers = {r.response for group in make_requests(make_world()).values() for r in group}
    for document in make_corpus(1, {"tagged_requests": 1.0}, 50_000):
        lines = document.splitlines()
        assert all(line.startswith("<|") for line in lines[::2])
        assert not answers & set(lines[1::2])


def test_unknown_kind_in_a_mix_is_refused():
    with pytest.raises(ValueError, match="unknown kinds \\['songs'\\]"):
        next(make_corpus(1, {"songs": 1.0}, 10))
