"""The base as judge: mean log-probability a token, empty outputs, cuts, batches."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from implicit_tuning.judging.alpaca import judge_outputs
from implicit_tuning.judging.judge import Pair
from implicit_tuning.judging.judges.mean_logprob import DECIMALS, MeanLogprobJudge
from implicit_tuning.models.chat import ChatFormat, prompt_text, tokenize_prompt

CONTEXT = 96
FORMAT = ChatFormat(user="<u>", assistant="<a>", system="<s>")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A random two-layer model over single bytes."""
    folder = tmp_path_factory.mktemp("base")
    alphabet = ["<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {piece: number for number, piece in enumerate(alphabet)}
    bytes_only = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=bytes_only, eos_token="<eos>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.5,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def judge(base, **changes):
    return MeanLogprobJudge(base, **({"base_digest": "d1", "chat_format": FORMAT} | changes))


def mean_by_hand(base, instruction, output):
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base)
    prompt = tokenize_prompt(instruction, tokenizer, FORMAT)
    text = prompt_text(instruction, FORMAT) + output.strip()
    whole = tokenizer(text)["input_ids"]
    assert whole[: len(prompt)] == prompt
    response = whole[len(prompt) :]
    with torch.no_grad():
        logits = model(torch.tensor([prompt + response])).logits[0]
    log_probabilities = logits.log_softmax(-1)
    scores = [
        log_probabilities[place - 1, token].item()
        for place, token in enumerate(response, start=len(prompt))
    ]
    return sum(scores) / len(scores)


def assert_alike(verdicts, expected):
    """The same verdicts from other batches: means may be rounded to the neighbouring decimal."""
    for verdict, other in zip(verdicts, expected, strict=True):
        assert (verdict.preference, verdict.n_cut) == (other.preference, other.n_cut)
        assert verdict.logprobs == pytest.approx(other.logprobs, abs=1.5 * 10**-DECIMALS)


PAIRS = [
    Pair("Name a color.", "green", "a far longer answer: blue"),
    Pair("Name a place.", "Zorvik\n", "x"),
    Pair("Add 1 and 2.", "aaaaaaaaaa", "3"),
]


def test_verdict_is_the_higher_mean_log_probability_a_token(base):
    for pair, verdict in zip(PAIRS, judge(base).judge(PAIRS), strict=True):
        mean_1, mean_2 = (mean_by_hand(base, pair.instruction, text) for text in pair[1:])
        assert verdict.logprobs["output_1"] == pytest.approx(mean_1, abs=1e-3)
        assert verdict.logprobs["output_2"] == pytest.approx(mean_2, abs=1e-3)
        assert verdict.preference == (1.0 if mean_1 > mean_2 else 2.0)


def test_verdicts_turn_round_with_the_pair(base):
    turned = [Pair(pair.instruction, pair.output_2, pair.output_1) for pair in PAIRS]
    verdicts = zip(judge(base).judge(PAIRS), judge(base).judge(turned), strict=True)
    assert all(one.preference + other.preference == 3.0 for one, other in verdicts)


def test_verdicts_do_not_depend_on_the_batch(base):
    expected = judge(base, batch_size=1).judge(PAIRS)
    assert_alike(judge(base, batch_size=4).judge(PAIRS), expected)
    assert_alike(judge(base, batch_size=4).judge(PAIRS[1:]), expected[1:])


def test_an_empty_output_loses_to_any_other(base):
    pairs = [Pair("Say no.", "", "\x00\x01"), Pair("Say no.", "no", ""), Pair("Say no.", "", "")]
    verdicts = judge(base).judge(pairs)
    assert [verdict.preference for verdict in verdicts] == [2.0, 1.0, 1.5]
    assert verdicts[0].logprobs["output_1"] is None


def test_outputs_beyond_the_context_are_cut_and_counted(base):
    room = CONTEXT - len("<u>\nGo on.\n<a>\n")
    # The mean of these letters lies far from where rounding changes: the same tokens are a draw.
    full, over = "xy" * (room // 2), "xy" * (room // 2) + "cd" * 40
    exact = full + "c" * (room % 2)
    verdicts = judge(base).judge([Pair("Go on.", exact, over), Pair("Go on.", over, over + "!")])
    assert [verdict.n_cut for verdict in verdicts] == [1, 2]
    assert verdicts[0].preference == 1.5


def test_a_prompt_that_fills_the_context_is_refused(base):
    with pytest.raises(ValueError, match=r"has \d+ tokens and the judging base .* context of 96"):
        judge(base).judge([Pair("long " * 30, "a", "b")])


def test_identity_goes_by_base_and_format():
    def identity(**changes):
        return judge("nowhere", **changes).judge_id

    assert identity().startswith("mean_logprob-")
    assert identity() == identity(batch_size=3)
    assert identity() != identity(base_digest="d2")
    assert identity() != identity(chat_format=ChatFormat())


def test_comparison_under_a_base_is_repeatable_and_named(base):
    outputs, references = (
        [{"instruction": p.instruction, "output": p[side], "generator": str(side)} for p in PAIRS]
        for side in (1, 2)
    )
    first = judge_outputs(outputs, references, judge(base), chunk_size=2)
    assert first == judge_outputs(outputs, references, judge(base), chunk_size=2)
    # Other chunks make other batches, which round otherwise; verdicts and their counts stay.
    other = judge_outputs(outputs, references, judge(base), chunk_size=3)
    assert other.summary == first.summary
    for row, expected in zip(other.annotations, first.annotations, strict=True):
        logprobs = pytest.approx(expected["verdict_logprobs"], abs=1.5 * 10**-DECIMALS)
        assert row == {**expected, "verdict_logprobs": logprobs}
    assert first.summary["judge_id"].startswith("mean_logprob-")
    turned = judge_outputs(references, outputs, judge(base))
    assert first.summary["win_rate"] + turned.summary["win_rate"] == pytest.approx(100.0)
