"""Mean log-probabilities against a plain loop: batches, prompts in common, half precision."""

import pytest
import torch
from tiny_models import character_tokenizer, random_model

from implicit_tuning.chat import ChatFormat, prompt_text, tokenize_prompt
from implicit_tuning.scoring import mean_logprobs, response_ids

FORMAT = ChatFormat(user="<u>", assistant="<a>", system="<s>")
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
    assert means == pytest.approx(expected, abs=1e-5)
    assert len({round(mean, 3) for mean in means}) == len(SEQUENCES)


def test_an_empty_response_has_no_mean_and_moves_no_other(model):
    holes = [SEQUENCES[0], ([5], []), *SEQUENCES[1:], ([6, 7], [])]
    means = mean_logprobs(model, holes, 2)
    assert (means[1], means[-1]) == (None, None)
    full = [mean for mean in means if mean is not None]
    assert full == pytest.approx(mean_logprobs(model, SEQUENCES, 2), abs=1e-5)
    assert mean_logprobs(model, [([5], [])], 2) == [None]
    assert mean_logprobs(model, [], 2) == []


def test_log_probabilities_of_half_precision_logits_are_taken_in_float32():
    model = random_model(len(character_tokenizer())).to(torch.bfloat16)
    means = mean_logprobs(model, SEQUENCES[:1], 1)
    assert means == pytest.approx([mean_by_hand(model, *SEQUENCES[0])], abs=0.05)
    rounded_again = torch.tensor(means).to(torch.bfloat16).float()
    assert abs(rounded_again - torch.tensor(means)) > 1e-4


def test_the_longest_come_first_and_like_lengths_together(model, monkeypatch):
    shapes = []
    forward = model.forward

    def watched(input_ids, **rest):
        shapes.append(tuple(input_ids.shape))
        return forward(input_ids=input_ids, **rest)

    monkeypatch.setattr(model, "forward", watched)
    mean_logprobs(model, SEQUENCES, 2)
    assert shapes == [(2, 43), (2, 5), (1, 4)]


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
