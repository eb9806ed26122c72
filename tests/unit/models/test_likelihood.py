"""Mean log-probabilities against a plain loop: batches, prompts in common, half precision."""

import pytest
import torch
from transformers import AttentionInterface, AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from implicit_tuning.models import likelihood as scoring
from implicit_tuning.models.chat import ChatFormat, prompt_text, tokenize_prompt
from implicit_tuning.models.likelihood import mean_logprobs, response_ids
from tiny_models import character_tokenizer, random_model

FORMAT = ChatFormat(user="<u>", assistant="<a>", system="<s>")
# Batches, threads and processors add float32 numbers in different orders: means near 5 then differ by
# some 1e-6, in models with biases by 1e-5. Behind another prompt they differ by tenths.
ROUNDING = 5e-5
# One prompt with several responses, other lengths of both, and a response of one token.
SEQUENCES = [
    ([5, 6, 7], [8, 9]),
    ([5, 6, 7], [10] * 40),
    ([5, 6, 7], [11]),
    ([12] * 30, [3, 0, 0, 4]),
    ([13], [14, 15, 16]),
]


@pytest.fixture(scope="module", params=["llama", "olmo"])
def model(request):
    return random_model(len(character_tokenizer()), request.param)


@torch.no_grad()
def mean_by_hand(model, prompt, response):
    """One sequence, one token at a time."""
    ids = list(prompt)
    total = 0.0
    for token in response:
        logits = model(torch.tensor([ids])).logits[0, -1].float()
        total += logits.log_softmax(-1)[token].item()
        ids.append(token)
    return total / len(response)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_means_are_those_of_a_plain_loop_in_any_batch(model, batch_size):
    means = mean_logprobs(model, SEQUENCES, batch_size)
    expected = [mean_by_hand(model, *sequence) for sequence in SEQUENCES]
    assert means == pytest.approx(expected, abs=ROUNDING)
    assert len({round(mean, 3) for mean in means}) == len(SEQUENCES)


def test_an_empty_response_has_no_mean_and_moves_no_other(model):
    holes = [SEQUENCES[0], ([5], []), *SEQUENCES[1:], ([6, 7], [])]
    means = mean_logprobs(model, holes, 2)
    assert (means[1], means[-1]) == (None, None)
    full = [mean for mean in means if mean is not None]
    assert full == pytest.approx(mean_logprobs(model, SEQUENCES, 2), abs=ROUNDING)
    assert mean_logprobs(model, [([5], [])], 2) == [None]
    assert mean_logprobs(model, [], 2) == []


def test_log_probabilities_of_half_precision_logits_are_taken_in_float32():
    model = random_model(len(character_tokenizer())).to(torch.bfloat16)
    means = mean_logprobs(model, SEQUENCES, 64)
    assert means == pytest.approx([mean_by_hand(model, *s) for s in SEQUENCES], abs=0.05)
    of_one_token = torch.tensor(means[2])
    assert of_one_token.to(torch.bfloat16).float() != of_one_token


# Attention that reads mask and positions alone, and attention that does not.
SHARING = {
    "key and value heads in common": ("llama", {"num_key_value_heads": 1}),
    "bias": ("qwen2", {}),
    "experts": ("mixtral", {"num_local_experts": 2, "sliding_window": None}),
    "part of a head turned": ("gpt_neox", {}),
    "window as long as the text": ("mistral", {"sliding_window": 43}),
    "capped logits": ("gemma2", {"sliding_window": 64, "head_dim": 16}),
    "mask that is added": ("llama", {"num_key_value_heads": 1}, "eager"),
}
NOT_SHARING = {
    "window": ("mistral", {"sliding_window": 8}),
    "window in some layers": ("gemma2", {"sliding_window": 8, "head_dim": 16}),
    "window of pieces": ("llama4_text", {"attention_chunk_size": 16, "head_dim": 16}),
    "table of positions": ("gpt2", {}),
    "distances": ("bloom", {}),
    "distances or positions": ("falcon", {"alibi": True, "new_decoder_architecture": False}),
    "state": ("mamba", {"state_size": 4}),
    "state in some layers": (
        "falcon_h1",
        {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_chunk_size": 8},
    ),
    "attention without masks": ("llama", {}, "maskless"),
}


def other_model(kind, settings, attention=None):
    AttentionInterface.register("maskless", sdpa_attention_forward)
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](
        vocab_size=100,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        **{"num_key_value_heads": 2, "initializer_range": 0.3, "pad_token_id": None} | settings,
    )
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


@pytest.fixture
def shapes(monkeypatch):
    """Shapes of the rows that a model is given, and the number of its logits."""
    seen = []

    def watch(model):
        forward = model.forward

        def watched(input_ids, **rest):
            output = forward(input_ids=input_ids, **rest)
            seen.append((*input_ids.shape, output.logits[..., 0].numel()))
            return output

        monkeypatch.setattr(model, "forward", watched)
        return seen

    return watch


@pytest.mark.parametrize("kind", SHARING)
def test_a_prompt_is_computed_once_where_mask_and_positions_are_all(kind, shapes):
    model = other_model(*SHARING[kind])
    expected = [mean_by_hand(model, *sequence) for sequence in SEQUENCES]
    rows = shapes(model)
    assert mean_logprobs(model, SEQUENCES, 64) == pytest.approx(expected, abs=ROUNDING)
    assert [row[:2] for row in rows] == [(3, 46)]


@pytest.mark.parametrize("kind", NOT_SHARING)
def test_each_response_has_a_prompt_of_its_own_where_they_are_not(kind, shapes):
    model = other_model(*NOT_SHARING[kind])
    expected = [mean_by_hand(model, *sequence) for sequence in SEQUENCES]
    rows = shapes(model)
    assert mean_logprobs(model, SEQUENCES, 64) == pytest.approx(expected, abs=ROUNDING)
    assert [row[:2] for row in rows] == [(5, 43)]


@pytest.mark.parametrize(
    ("batch_size", "expected"),
    [
        # Rows of prompt and responses, their length, and logits: of the prompt's last token once,
        # and of each response but its last token.
        (64, [(3, 46, 1 + 1 + 39 + 0 + 1 + 3 + 1 + 2)]),
        (3, [(1, 46, 41), (2, 34, 7)]),
        (2, [(1, 45, 41), (2, 34, 4 + 1), (1, 4, 3)]),
        (1, [(1, 43, 40), (1, 34, 4), (1, 5, 2), (1, 4, 1), (1, 4, 3)]),
    ],
)
def test_the_longest_rows_come_first_and_logits_of_responses_alone(
    model, shapes, batch_size, expected
):
    rows = shapes(model)
    mean_logprobs(model, SEQUENCES, batch_size)
    assert rows == expected


def test_long_responses_to_one_prompt_lie_in_rows_of_their_own(model, shapes, monkeypatch):
    monkeypatch.setattr(scoring, "SHARED_ROW_TOKENS", 44)
    expected = [mean_by_hand(model, *sequence) for sequence in SEQUENCES]
    rows = shapes(model)
    assert mean_logprobs(model, SEQUENCES, 64) == pytest.approx(expected, abs=ROUNDING)
    assert [row[:2] for row in rows] == [(4, 44)]


def test_responses_to_one_prompt_may_stand_anywhere(model):
    order = [2, 0, 4, 3, 1]
    means = mean_logprobs(model, SEQUENCES, 64)
    mixed = mean_logprobs(model, [SEQUENCES[place] for place in order], 64)
    assert mixed == pytest.approx([means[place] for place in order], abs=ROUNDING)
    twice = mean_logprobs(model, [SEQUENCES[0], SEQUENCES[0]], 64)
    assert twice == pytest.approx([means[0], means[0]], abs=ROUNDING)


@pytest.mark.parametrize("bos", [False, True])
def test_response_ids_continue_the_prompt_without_eos(bos):
    tokenizer = character_tokenizer(bos=bos)
    prompt = tokenize_prompt("Name a tree.", tokenizer, FORMAT)
    response = response_ids("Name a tree.", "  An oak\n", tokenizer, FORMAT, len(prompt))
    text = prompt_text("Name a tree.", FORMAT) + "An oak"
    assert prompt + response == tokenizer(text)["input_ids"]
    assert tokenizer.eos_token_id not in response


def test_a_progress_bar_appears_only_when_it_has_a_name(model, capsys):
    mean_logprobs(model, SEQUENCES, 2)
    assert capsys.readouterr().err == ""
    mean_logprobs(model, SEQUENCES, 2, progress="rank")
    assert "rank: 100%" in capsys.readouterr().err
