"""The three rules as the paper states them: one text at a time, no cache, token ids in hand."""

from collections.abc import Mapping, Sequence

import torch

# Llama-2's ids (paper, appendix on the rule-based adapter).
LLAMA_2_BIAS = {
    29966: -4, 529: -4, 29989: -4, 306: -5, 334: 1,
    29902: -5, 1334: -3, 5618: -5, 881: -6, 448: 1,
    1678: 1, 396: 1, 444: 1, 13: 1, 29991: 1,
}  # fmt: skip


def rule_scores(
    ids: Sequence[int],
    response_tokens: int,
    vocabulary: int,
    rules: Sequence[str],
    eos: int,
    tag: Sequence[int],
    bias: Mapping[int, float],
    ramp: int = 250,
    hold: bool = True,
) -> torch.Tensor:
    """Scores of the next token, (vocabulary,)."""
    scores = torch.zeros(vocabulary)
    if "eos" in rules:
        if 0 < response_tokens < ramp:
            scores[eos] += 15 * response_tokens / ramp
        elif response_tokens >= ramp and hold:
            scores[eos] += 15
    if "repetition" in rules:
        width = len(tag)
        tags = [i for i in range(len(ids)) if list(ids[i : i + width]) == list(tag)]
        for token in set(ids[tags[-1] + width :]):
            scores[token] -= 1.5
    if "bias" in rules:
        for token, value in bias.items():
            scores[token] += value
    return scores


@torch.no_grad()
def greedy(model, prompt: Sequence[int], new_tokens: int, **rules) -> list[int]:
    """The response to one prompt, its EOS included."""
    response: list[int] = []
    while len(response) < new_tokens and response[-1:] != [rules["eos"]]:
        ids = [*prompt, *response]
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        scores = rule_scores(ids, len(response), len(logits), **rules)
        total = logits.log_softmax(-1) + scores.log_softmax(-1)
        response.append(int(total.argmax()))
    return response
