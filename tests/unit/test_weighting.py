import pytest
import torch
from tiny_models import random_model
from torch.nn import functional

from implicit_tuning.weighting import IGNORED, token_weights, weighted_loss

VOCABULARY = 40


def make_examples():
    """Input ids and prompt length of seven examples of very different length."""
    generator = torch.Generator().manual_seed(1)
    lengths = [(3, 1), (5, 2), (40, 3), (4, 30), (9, 9), (1, 2), (12, 25)]
    return [
        (torch.randint(VOCABULARY, (prompt + response,), generator=generator), prompt)
        for prompt, response in lengths
    ]


def naive_loss(model, examples):
    """Mean over the examples of each one's mean token loss, one example at a time."""
    losses = []
    for ids, prompt in examples:
        logits = model(input_ids=ids[None]).logits[0]
        losses.append(functional.cross_entropy(logits[prompt - 1 : -1], ids[prompt:]))
    return torch.stack(losses).mean()


def naive_token_loss(model, examples):
    """Mean over all response tokens."""
    losses = []
    for ids, prompt in examples:
        logits = model(input_ids=ids[None]).logits[0]
        losses.append(
            functional.cross_entropy(logits[prompt - 1 : -1], ids[prompt:], reduction="none")
        )
    return torch.cat(losses).mean()


def accumulated_loss(model, examples, sizes, weighting):
    """Backward through micro-batches of the given sizes, padded on the right."""
    weights = token_weights([len(ids) - prompt for ids, prompt in examples], weighting)
    total, start = 0.0, 0
    for size in sizes:
        part = examples[start : start + size]
        longest = max(len(ids) for ids, _ in part)
        input_ids = torch.zeros(size, longest, dtype=torch.long)
        labels = torch.full((size, longest), IGNORED)
        for row, (ids, prompt) in enumerate(part):
            input_ids[row, : len(ids)] = ids
            labels[row, prompt : len(ids)] = ids[prompt:]
        logits = model(input_ids=input_ids).logits
        loss = weighted_loss(logits, labels, torch.tensor(weights[start : start + size]))
        loss.backward()
        total += loss.item()
        start += size
    return total


def gradient(model):
    vector = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    model.zero_grad()
    return vector


@pytest.mark.parametrize("family", ["llama", "olmo"])
@pytest.mark.parametrize("weighting", ["example", "token"])
@pytest.mark.parametrize("sizes", [[7], [1] * 7, [3, 3, 1], [5, 2]])
def test_any_split_gives_the_loss_and_gradient_of_the_plain_mean(family, weighting, sizes):
    model = random_model(VOCABULARY, family)
    examples = make_examples()
    plain = {"example": naive_loss, "token": naive_token_loss}[weighting]
    expected_loss = plain(model, examples)
    expected_loss.backward()
    expected = gradient(model)
    loss = accumulated_loss(model, examples, sizes, weighting)
    assert loss == pytest.approx(expected_loss.item(), rel=1e-5)
    assert (gradient(model) - expected).norm() <= 1e-5 * expected.norm()


def test_the_two_weightings_differ():
    model = random_model(VOCABULARY)
    by_example = accumulated_loss(model, make_examples(), [7], "example")
    by_token = accumulated_loss(model, make_examples(), [7], "token")
    assert abs(by_example - by_token) > 1e-2


def test_weights():
    assert token_weights([1, 4], "example") == [1 / 2, 1 / 8]
    assert token_weights([1, 4], "token") == [1 / 5, 1 / 5]
    with pytest.raises(ValueError, match="'row' is neither"):
        token_weights([1], "row")


def test_half_precision_logits_give_an_fp32_loss():
    logits = torch.randn(2, 5, VOCABULARY, dtype=torch.bfloat16)
    labels = torch.full((2, 5), IGNORED)
    labels[:, 3:] = 1
    assert weighted_loss(logits, labels, torch.tensor([0.25, 0.25])).dtype == torch.float32
