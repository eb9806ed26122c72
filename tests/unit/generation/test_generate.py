from dataclasses import asdict, replace

import pytest
import torch
from transformers import GenerationConfig

import rule_reference
from greedy_answers import (
    FORMAT,
    INSTRUCTIONS,
    RULE_SETTINGS,
    SETTINGS,
    outputs,
    run,
    write_instructions,
)
from implicit_tuning.generation.generate import generate
from implicit_tuning.models.chat import tokenize_prompt
from implicit_tuning.models.rule_adapter import RULES, RuleSettings
from tiny_models import character_tokenizer, random_model, write_base


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"))


def reference(rules=(), new_tokens=20):
    """Answers of the plain reference, one prompt at a time, as token ids."""
    tokenizer = character_tokenizer()
    model = random_model(len(tokenizer))
    vocabulary = tokenizer.get_vocab()
    return [
        rule_reference.greedy(
            model,
            tokenize_prompt(text, tokenizer, FORMAT),
            new_tokens,
            rules=rules,
            eos=tokenizer.eos_token_id,
            tag=tokenizer(FORMAT.user)["input_ids"],
            bias={vocabulary["!"]: 1.0, vocabulary["I"]: -5.0},
            ramp=12,
        )
        for text in INSTRUCTIONS
    ]


@pytest.mark.parametrize("batch_size", [1, 3, 32])
@pytest.mark.parametrize("rules", [None, RULE_SETTINGS], ids=["plain", "rules"])
def test_greedy_answers_are_the_references_in_any_batch(base, tmp_path, batch_size, rules):
    report = run(base, tmp_path, replace(SETTINGS, batch_size=batch_size), rules)
    expected = reference(RULES if rules else ())
    tokenizer = character_tokenizer()
    written = outputs(tmp_path)
    assert [o["output"] for o in written] == [
        tokenizer.decode(ids, skip_special_tokens=True) for ids in expected
    ]
    assert [o["n_tokens"] for o in written] == [len(ids) for ids in expected]
    assert report.n_tokens == sum(map(len, expected))
    assert report.n_eos == sum(ids[-1] == tokenizer.eos_token_id for ids in expected)
    assert len({len(ids) for ids in expected}) > 1, "some answers must end before others"


def test_records(base, tmp_path):
    report = run(base, tmp_path)
    written = outputs(tmp_path)
    assert [o["index"] for o in written] == list(range(len(INSTRUCTIONS)))
    assert [o["instruction"] for o in written] == INSTRUCTIONS
    for output in written:
        assert set(output) == {
            "index", "instruction", "output", "generator", "n_tokens", "finish"
        }  # fmt: skip
        assert output["generator"] == "tiny"
    finishes = [o["finish"] for o in written]
    assert (report.n_eos, report.n_length) == (finishes.count("eos"), finishes.count("length"))
    assert report.n == len(INSTRUCTIONS)


def test_rules_report_their_pieces(base, tmp_path):
    report = run(base, tmp_path, rules=RULE_SETTINGS)
    assert list(report.resolved_pieces) == ["!", "I"]
    assert report.unresolved_pieces == ("\u2581We",)
    assert set(asdict(report)) >= {"n_empty", "n_eos", "n_length", "n_tokens"}


def test_generation_settings_of_the_folder_do_not_count(tmp_path):
    base = write_base(tmp_path / "base")
    run(base, tmp_path / "before")
    GenerationConfig(
        do_sample=True, temperature=5.0, repetition_penalty=9.0, num_beams=2, min_new_tokens=5,
        eos_token_id=list(range(50)), suppress_tokens=list(range(20)), no_repeat_ngram_size=2,
    ).save_pretrained(base)  # fmt: skip
    run(base, tmp_path / "after")
    assert outputs(tmp_path / "after") == outputs(tmp_path / "before")


def test_answer_ends_where_the_context_does(tmp_path):
    base = write_base(tmp_path / "base", context=40)
    prompt = len(tokenize_prompt("", character_tokenizer(), FORMAT))
    texts = ["", "abc", "abcdef"]
    report = run(base, tmp_path / "out", replace(SETTINGS, max_new_tokens=15), texts=texts)
    lengths = [o["n_tokens"] for o in outputs(tmp_path / "out")]
    assert lengths == [min(15, 40 - prompt - len(text)) for text in texts]
    assert len(set(lengths)) > 1
    assert report.n_length == 3


def test_prompt_that_fills_the_context_is_refused(tmp_path):
    base = write_base(tmp_path / "base", context=40)
    with pytest.raises(ValueError, match="instruction 1 .* 64 tokens.* context of 40"):
        run(base, tmp_path / "out", texts=["", "x" * 40])
    assert not (tmp_path / "out" / "outputs.jsonl").exists()


def test_an_empty_answer_of_the_model_is_kept_and_counted(tmp_path):
    base = write_base(tmp_path / "base")
    rules = RuleSettings(rules=("bias",), bias={"<eos>": 1e6})
    report = run(base, tmp_path / "out", rules=rules)
    assert {o["output"] for o in outputs(tmp_path / "out")} == {""}
    assert {o["n_tokens"] for o in outputs(tmp_path / "out")} == {1}
    assert report.n_empty == report.n_eos == report.n == len(INSTRUCTIONS)


def test_a_failure_fails(base, tmp_path, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("implicit_tuning.generation.engines.transformers_engine._batches", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(base, tmp_path)
    assert not (tmp_path / "outputs.jsonl").exists()


def test_bad_instructions_are_refused(base, tmp_path):
    with pytest.raises(ValueError, match="at least one instruction"):
        run(base, tmp_path, texts=[])
    path = write_instructions(tmp_path / "instructions.jsonl", ["a", "b"])
    path.write_text(path.read_text().replace('"index": 1', '"index": 0'))
    with pytest.raises(ValueError, match="each index once"):
        generate(base, path, tmp_path, "tiny", FORMAT, SETTINGS, None)


@pytest.mark.parametrize("missing", ["tokenizer.json", "model.safetensors", "config.json"])
def test_incomplete_model_is_named(tmp_path, missing):
    base = write_base(tmp_path / "base")
    (base / missing).unlink()
    with pytest.raises(ValueError, match=missing) as error:
        run(base, tmp_path / "out")
    assert str(base) in str(error.value)


def test_olmo_with_bos_and_eager_attention_in_bfloat16(tmp_path):
    base = write_base(tmp_path / "base", "olmo", bos=True)
    settings = replace(SETTINGS, dtype="bfloat16", attention="eager")
    report = run(base, tmp_path / "out", settings)
    assert report.n == len(INSTRUCTIONS)
    assert torch.get_default_dtype() == torch.float32
