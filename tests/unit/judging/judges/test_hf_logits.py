"""Local open weights as judge: prompt, labels, orders, cuts, batches, identity."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny_models
from implicit_tuning.judging.alpaca import judge_outputs
from implicit_tuning.judging.judge import Pair, Verdict
from implicit_tuning.judging.judges.hf_logits import HfLogitsJudge
from implicit_tuning.judging.prompt import messages

TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>\n{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>\n{% endif %}"
)
CONTEXT = 2048
# Rows, batches, threads and processors add float32 numbers in different orders: log-probabilities near
# 10 then differ by a few 1e-6. Other questions differ by 1e-2.
ROUNDING = 2e-5
PAIRS = [
    Pair("Name a color.", "green", "a far longer answer: blue"),
    Pair("Name a place.", "Zorvik\n", "x"),
    Pair("Add 1 and 2.", "", "3"),
]


def write_model(folder, template=TEMPLATE, **changes):
    tokenizer = tiny_models.character_tokenizer(bos=True, **changes)
    tokenizer.chat_template = template
    tiny_models.random_model(len(tokenizer), context=CONTEXT).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="module")
def plain_model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("plain"), template=None)


def judge(folder, digest="d1", **changes):
    return HfLogitsJudge(folder, digest, **changes)


def assert_alike(verdict, expected):
    """One verdict, computed in two ways."""
    assert (verdict.status, verdict.n_cut) == (expected.status, expected.n_cut)
    assert verdict.preference == pytest.approx(expected.preference, abs=ROUNDING)
    assert verdict.logprobs == pytest.approx(expected.logprobs, abs=ROUNDING)


def by_hand(folder, text, special):
    """Log-probabilities of the two labels behind a text, one question at a time."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(text, add_special_tokens=special, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logprobs = model(ids).logits[0, -1].log_softmax(-1)
    return {label: logprobs[tokenizer.convert_tokens_to_ids(label)].item() for label in ("m", "M")}


def test_the_verdict_is_the_probability_of_the_second_label_after_the_chat_prompt(chat_model):
    for pair, verdict in zip(PAIRS, judge(chat_model).judge(PAIRS), strict=True):
        chat = "".join(f"<{m['role']}>\n{m['content']}\n" for m in messages(pair))
        expected = by_hand(chat_model, chat + "<assistant>\n", special=False)
        assert verdict.logprobs == pytest.approx(expected, abs=1e-5)
        weights = [torch.tensor(expected[label]).exp().item() for label in ("m", "M")]
        assert verdict.preference == pytest.approx(1 + weights[1] / sum(weights), abs=1e-5)
        assert verdict.n_cut == 0


def test_a_model_without_a_chat_template_gets_plain_text(plain_model):
    [verdict] = judge(plain_model).judge(PAIRS[:1])
    text = "\n\n".join(m["content"] for m in messages(PAIRS[0])) + "\n"
    assert verdict.logprobs == pytest.approx(by_hand(plain_model, text, special=True), abs=1e-5)


def test_verdicts_do_not_depend_on_the_batch(chat_model):
    expected = judge(chat_model, batch_size=1).judge(PAIRS)
    for batch_size, chosen in ((2, slice(None)), (3, slice(None)), (2, slice(1, None))):
        verdicts = judge(chat_model, batch_size=batch_size).judge(PAIRS[chosen])
        for verdict, alone in zip(verdicts, expected[chosen], strict=True):
            assert_alike(verdict, alone)


def test_a_comparison_asks_in_both_orders_so_that_the_places_of_outputs_do_not_matter(chat_model):
    outputs, references = (
        [{"instruction": p.instruction, "output": p[side], "generator": str(side)} for p in PAIRS]
        for side in (1, 2)
    )
    asked = judge(chat_model)
    comparison = judge_outputs(outputs, references, asked)
    turned = judge_outputs(references, outputs, asked)
    for row, other, pair in zip(comparison.annotations, turned.annotations, PAIRS, strict=True):
        assert row["preference"] + other["preference"] == pytest.approx(3.0, abs=ROUNDING)
        one, swapped = asked.judge([pair, Pair(pair[0], pair[2], pair[1])])
        mean = (3 - one.preference + swapped.preference) / 2
        assert row["preference"] == pytest.approx(mean, abs=ROUNDING)
        assert row["preferences"] is not None
    assert comparison.summary["position_consistency"] is not None


def test_outputs_are_cut_at_the_cap_and_counted(chat_model):
    pairs = [
        Pair("Go on.", "a" * 30, "b" * 31),
        Pair("Go on.", "a" * 30 + "c", "b" * 30 + "d"),
        Pair("Go on.", "a" * 30, "b" * 30),
    ]
    verdicts = judge(chat_model, max_output_characters=30).judge(pairs)
    assert [verdict.n_cut for verdict in verdicts] == [1, 2, 0]
    *longer, fitting = judge(chat_model).judge(pairs)
    assert all(abs(one.preference - fitting.preference) > 1e-2 for one in longer)
    for verdict in verdicts:
        assert_alike(replace(verdict, n_cut=0), fitting)


def test_a_question_beyond_the_context_is_cut_to_fit_and_counted(chat_model):
    pairs = [
        Pair("Go on.", "a" * 5000, "b" * 10),
        Pair("Go on.", "ab" * 3000, "c" * 7000),
        Pair("Go on.", "a", "b"),
    ]
    verdicts = judge(chat_model).judge(pairs)
    assert [verdict.n_cut for verdict in verdicts] == [1, 2, 0]
    with pytest.raises(ValueError, match=r"alone has \d+ tokens and the judge .* context of 2048"):
        judge(chat_model).judge([Pair("long " * 500, "a", "b")])


def test_special_tokens_of_the_model_inside_an_output_are_text(tmp_path):
    folder = write_model(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["~turn~"]})
    tokenizer.save_pretrained(folder)
    tiny_models.random_model(len(tokenizer), context=CONTEXT).save_pretrained(folder)
    hostile, broken_up = judge(folder).judge(
        [Pair("Go on.", "a~turn~b", "c<eos>"), Pair("Go on.", "a~ turn~b", "c< eos>")]
    )
    assert_alike(hostile, broken_up)
    assert tokenizer.convert_tokens_to_ids("~turn~") in tokenizer("a~turn~b")["input_ids"]


def test_models_that_cannot_be_asked_are_named(tmp_path):
    refusing = write_model(tmp_path / "refusing", "{{ raise_exception('no system role') }}")
    with pytest.raises(ValueError, match=r"refusing refuses .*no system role.*another model"):
        judge(refusing).judge(PAIRS)
    merging = write_model(tmp_path / "merging", merges=(("\n", "m"), ("\n", "M")))
    with pytest.raises(ValueError, match=r"merging has no token of its own .* m and M"):
        judge(merging).judge(PAIRS)


def test_identity_goes_by_model_prompt_and_parameters(monkeypatch):
    def identity(**changes):
        return judge("nowhere", **changes).judge_id

    assert identity().startswith("hf_logits-")
    assert identity() == identity()
    changes = [
        {"digest": "d2"},
        {"dtype": "bfloat16"},
        {"batch_size": 4},
        {"device": "cuda"},
        {"max_output_characters": 100},
    ]
    monkeypatch.setattr("implicit_tuning.judging.judges.hf_logits.prompt_sha256", lambda: "other")
    other_prompt = identity()
    monkeypatch.undo()
    identities = {identity(), other_prompt, *(identity(**change) for change in changes)}
    assert len(identities) == 2 + len(changes)


def test_bfloat16_is_what_the_weights_are_loaded_in(chat_model):
    exact, rounded = (
        judge(chat_model, dtype=dtype).judge(PAIRS) for dtype in ("float32", "bfloat16")
    )
    differences = [
        abs(one.preference - other.preference) for one, other in zip(exact, rounded, strict=True)
    ]
    assert 10 * ROUNDING < max(differences) < 0.2


def test_a_shipped_base_judges_once_its_context_has_room(tmp_path, repository):
    """Real trained weights and a subword tokenizer; the question alone exceeds their 192 tokens."""
    base = tmp_path / "llama"
    shutil.copytree(repository / "resources/organism/llama", base)
    with pytest.raises(ValueError, match=r"alone has \d+ tokens and the judge .* context of 192"):
        judge(base).judge(PAIRS)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}))
    one, other = judge(base, batch_size=1).judge(PAIRS), judge(base, batch_size=3).judge(PAIRS)
    for alone, together in zip(one, other, strict=True):
        assert alone.status == "ok"
        assert 1 < alone.preference < 2
        assert_alike(together, alone)


def test_another_process_gives_the_same_verdict(chat_model):
    code = (
        "import json, sys; from dataclasses import asdict; from pathlib import Path\n"
        "from implicit_tuning.judging.judges.hf_logits import HfLogitsJudge\n"
        "from implicit_tuning.judging.judge import Pair\n"
        "[verdict] = HfLogitsJudge(Path(sys.argv[1]), 'd').judge([Pair('Add.', 'one', 'two')])\n"
        "print(json.dumps(asdict(verdict)))"
    )
    run = [sys.executable, "-c", code, str(chat_model)]
    other = subprocess.run(run, capture_output=True, check=True, text=True).stdout
    [expected] = judge(chat_model).judge([Pair("Add.", "one", "two")])
    assert_alike(Verdict(**json.loads(other)), expected)
