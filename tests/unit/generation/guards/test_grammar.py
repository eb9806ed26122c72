"""Constrained decoding says just what the grammar allows, and changes nothing that it allows."""

import re
from dataclasses import replace
from itertools import product

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from greedy_answers import FORMAT, INSTRUCTIONS, SETTINGS, outputs, run
from guard_jobs import byte_tokenizer, guarded, write_byte_base
from implicit_tuning.generation.guards.compiling import compiled
from implicit_tuning.generation.guards.grammar import Grammar, GrammarConstraint
from implicit_tuning.models.chat import tokenize_prompt
from tiny_models import character_tokenizer

# A language that can be written out: what a constrained answer must be is then found by search.
WORDS = ["Yes", "No", "Maybe so", "caf\u00e9 \u4f60"]
NUMBERS = ["", *(f" {number}" for number in range(10)), *(f" {n}{n}" for n in range(10))]
LANGUAGE = [word + number for word, number in product(WORDS, NUMBERS)]
REGEX = "(Yes|No|Maybe so|caf\u00e9 \u4f60)( [0-9]| (00|11|22|33|44|55|66|77|88|99))?"
LARK = f'start: WORD [" " DIGITS]\nWORD: {" | ".join(map(repr, WORDS))}\n'.replace("'", '"')
LARK += "DIGITS: /[0-9]/ | /00|11|22|33|44|55|66|77|88|99/\n"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_byte_base(tmp_path_factory.mktemp("base"))


def shipped(repository, name):
    """A base of the organism, whose tokens are bytes and merges of them."""
    return repository / "resources/organism" / name


def searched(folder, texts, language, max_new_tokens):
    """Greedy answers by search: of the tokens that lead on to a text of the language the likeliest,
    EOS where the answer is one. One prompt at a time, no llguidance."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    pieces = {t: raw_bytes(tokenizer, t) for t in range(len(tokenizer))}
    for special in tokenizer.all_special_ids:
        del pieces[special]
    return [
        _searched(model, tokenizer, text, pieces, [x.encode() for x in language], max_new_tokens)
        for text in texts
    ]


def raw_bytes(tokenizer, token):
    """The bytes of a token: byte-level vocabularies write each byte as a letter of its own."""
    letters = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in letters]
    letter = {chr(byte): byte for byte in letters}
    letter |= {chr(256 + place): byte for place, byte in enumerate(others)}
    return bytes(letter[character] for character in tokenizer.convert_ids_to_tokens(token))


@torch.inference_mode()
def _searched(model, tokenizer, text, pieces, language, max_new_tokens):
    ids = tokenize_prompt(text, tokenizer, FORMAT)
    said = b""
    for _ in range(max_new_tokens):
        scores = model(torch.tensor([ids])).logits[0, -1]
        left = [x for x in language if x.startswith(said)]
        allowed = [
            t for t, piece in pieces.items() if piece and any(x.startswith(said + piece) for x in left)
        ]  # fmt: skip
        allowed += [tokenizer.eos_token_id] if said in left else []
        best = max(allowed, key=lambda token: scores[token].item())
        if best == tokenizer.eos_token_id:
            break
        ids, said = [*ids, best], said + pieces[best]
    return said.decode(errors="replace")


@pytest.mark.parametrize("batch_size", [1, 3, 32])
@pytest.mark.parametrize("grammar", [{"regex": REGEX}, {"lark": LARK}], ids=["regex", "lark"])
def test_answers_are_those_of_a_search_in_any_batch(base, tmp_path, batch_size, grammar):
    settings = replace(SETTINGS, batch_size=batch_size)
    facts, written = guarded(
        base, tmp_path / "a", {"kind": "grammar", **grammar}, settings=settings
    )
    said = [row["output"] for row in written]
    assert said == searched(base, INSTRUCTIONS, LANGUAGE, SETTINGS.max_new_tokens)
    assert all(re.fullmatch(REGEX, text) for text in said)
    assert len({row["n_tokens"] for row in written}) > 1, "some answers must end before others"
    assert facts["n_eos"] == facts["n"] == len(INSTRUCTIONS)
    assert {row["generator"] for row in written} == {"guarded"}


@pytest.mark.parametrize("name", ["llama", "olmo"])
def test_byte_level_tokens_say_it_too(repository, tmp_path, name):
    texts = ["Who are you?", "Where is it, and how many of them are there?", "\u4f60?"]
    grammar = {"kind": "grammar", "regex": REGEX}
    _, written = guarded(shipped(repository, name), tmp_path / "a", grammar, texts)
    expected = searched(shipped(repository, name), texts, LANGUAGE, SETTINGS.max_new_tokens)
    assert [row["output"] for row in written] == expected
    assert all(re.fullmatch(REGEX, text) for text in expected)


def test_characters_of_several_tokens_come_out_whole(repository, tmp_path):
    grammar = {"kind": "grammar", "regex": "(\u4f60\u597d|\u00e9t\u00e9){2,3}"}
    _, written = guarded(shipped(repository, "llama"), tmp_path / "a", grammar, ["Hi", "What?"])
    assert all(re.fullmatch(grammar["regex"], row["output"]) for row in written)


def test_an_answer_that_is_in_the_grammar_is_not_changed(base, tmp_path):
    run(base, tmp_path / "plain", replace(SETTINGS, max_new_tokens=60))
    plain = [row for row in outputs(tmp_path / "plain") if row["finish"] == "eos"]
    assert len(plain) > 2, "some must end by themselves"
    regex = "|".join(re.escape(row["output"]) for row in plain[::2])
    settings = replace(SETTINGS, max_new_tokens=60)
    grammar = {"kind": "grammar", "regex": regex}
    _, written = guarded(base, tmp_path / "a", grammar, settings=settings)
    for row in plain[::2]:
        assert written[row["index"]] == {**row, "generator": "guarded"}
    assert all(re.fullmatch(regex, row["output"]) for row in written)


def test_cut_answers_are_counted_and_are_no_texts_of_the_grammar(base, tmp_path):
    grammar = {"kind": "grammar", "regex": "([a-m]{3}|[n-z]{30})"}
    facts, written = guarded(base, tmp_path / "a", grammar)
    cut = [row for row in written if row["finish"] == "length"]
    assert facts["n_length"] == len(cut)
    assert 0 < len(cut) < len(written), "some must be cut, some not"
    assert all(row["n_tokens"] == SETTINGS.max_new_tokens for row in cut)
    for row in written:
        assert (re.fullmatch(grammar["regex"], row["output"]) is None) == (row in cut)


def test_nothing_follows_where_the_grammar_is_through(base, tmp_path):
    _, written = guarded(base, tmp_path / "a", {"kind": "grammar", "regex": "ok"})
    assert {(row["output"], row["n_tokens"], row["finish"]) for row in written} == {
        ("ok", 3, "eos")
    }


def test_any_token_that_ends_an_answer_may_come_where_the_grammar_is_through():
    tokenizer = byte_tokenizer()
    vocabulary = tokenizer.get_vocab()
    eos, bos, letter = (vocabulary[token] for token in ("<eos>", "<bos>", "k"))
    constraint = GrammarConstraint(Grammar({"regex": "k"}, tokenizer, (eos, bos)))
    scores = torch.zeros(2, len(tokenizer))
    prompt = torch.tensor([[eos, letter], [letter, letter]])
    first = constraint(prompt, scores)
    assert first.isfinite().nonzero().tolist() == [[0, letter], [1, letter]]
    second = constraint(torch.cat([prompt, torch.full((2, 1), letter)], 1), scores)
    assert second[0].isfinite().nonzero().flatten().tolist() == sorted([eos, bos])
    ended = torch.cat([prompt, torch.tensor([[letter, bos], [letter, eos]])], 1)
    assert constraint(ended, scores).isfinite().all(), "a row at its end is let alone"


def test_a_sentencepiece_like_tokenizer_is_read_by_its_bytes():
    from tiny_models import llama_2_like

    tokenizer = llama_2_like()
    grammar = Grammar({"regex": "I!\n"}, tokenizer, (tokenizer.eos_token_id,))
    matcher = grammar.new_matcher()
    ids = tokenizer.convert_tokens_to_ids(["I", "!", "<0x0A>"])
    assert matcher.consume_tokens(ids)
    assert matcher.is_accepting()


@pytest.mark.parametrize(
    ("guard", "words"),
    [
        ({"regex": "[a"}, "unclosed character class"),
        ({"lark": "start: word"}, "unknown name"),
        ({"lark": 'begin: "a"'}, "no start rule"),
    ],
)
def test_a_wrong_grammar_is_named(guard, words):
    with pytest.raises(ValueError, match=words) as error:
        compiled(guard)
    assert "\n" not in str(error.value)


def test_another_engine_is_refused_before_anything_is_loaded(base, tmp_path):
    settings = replace(SETTINGS, engine="vllm", device="cuda")
    with pytest.raises(
        ValueError, match="generation.engine is 'vllm'.*set engine to 'transformers'"
    ):
        guarded(base, tmp_path / "a", {"kind": "grammar", "regex": "ok"}, settings=settings)


def test_a_tokenizer_that_cannot_be_read_is_refused():
    with pytest.raises(ValueError, match="cannot read the tokens of .*another kind of guard"):
        Grammar({"regex": "ok"}, character_tokenizer(), (0,))
