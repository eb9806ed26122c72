"""How likely a model finds a response: mean log-probability of its tokens, given the chat prompt.

The measure of the paper's response ranking, and of the judge that is a base model.
"""

import sys
from collections.abc import Iterator, Sequence

import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from implicit_tuning.chat import ChatFormat, tokenize_conversation

PromptAndResponse = tuple[list[int], list[int]]  # token ids of both


def response_ids(
    instruction: str,
    response: str,
    tokenizer: PreTrainedTokenizerBase,
    chat_format: ChatFormat,
    prompt_length: int,
) -> list[int]:
    """The response's tokens as they stand in the chat text, without EOS and outer white space.

    Tokenized alone, the first piece would be another one (sentencepiece puts a space there).
    `prompt_length` is that of the instruction's `chat.tokenize_prompt`, in tokens.
    """
    turns = [
        {"role": "user", "content": instruction},
        {"role": "assistant", "content": response},
    ]
    whole = tokenize_conversation(turns, tokenizer, chat_format, sys.maxsize)
    return list(whole.input_ids[prompt_length:-1])


@torch.inference_mode()
def mean_logprobs(
    model: torch.nn.Module,
    sequences: Sequence[PromptAndResponse],
    batch_size: int,
    progress: str | None = None,
) -> list[float | None]:
    """The mean log-probability (nats a token) of each response given its prompt, in input order.

    Args:
        model: causal language model; whatever its dtype, log-probabilities are float32.
        sequences: (prompt ids, response ids); no prompt is empty. An empty response has no mean,
            which is returned as None.
        batch_size: sequences computed at once; those of like length go together.
        progress: name of the progress bar; None shows none.
    """
    means: list[float | None] = [None] * len(sequences)
    with tqdm(total=len(sequences), desc=progress, unit="text", disable=progress is None) as bar:
        for places in _batches(sequences, batch_size):
            batch = [sequences[place] for place in places]
            for place, mean in zip(places, _batch_means(model, batch), strict=True):
                means[place] = mean
            bar.update(len(places))
    return means


def _batches(sequences: Sequence[PromptAndResponse], size: int) -> Iterator[list[int]]:
    """Places of the sequences that have a response, the longest first: memory runs out at once or
    never, and hardly anything is padding."""
    lengths = [len(prompt) + len(response) for prompt, response in sequences]
    places = [place for place, (_, response) in enumerate(sequences) if response]
    places.sort(key=lambda place: -lengths[place])
    for start in range(0, len(places), size):
        yield places[start : start + size]


def _batch_means(model: torch.nn.Module, batch: Sequence[PromptAndResponse]) -> list[float]:
    # Padding stands on the right, where causal attention never looks back at it.
    input_ids = _padded([prompt + response for prompt, response in batch]).to(model.device)
    counted = _padded([[0] * len(prompt) + [1] * len(response) for prompt, response in batch])
    places = counted[:, 1:].bool().to(model.device)  # [batch, length - 1]: the next token counts
    # Logits of prompts and padding are dropped before the float32 copy, the largest tensor here.
    logits = model(input_ids=input_ids, use_cache=False).logits[:, :-1][places].float()
    losses = cross_entropy(logits, input_ids[:, 1:][places], reduction="none")  # [tokens]
    by_response = losses.double().split([len(response) for _, response in batch])
    return [-part.mean().item() for part in by_response]


def _padded(rows: Sequence[list[int]]) -> torch.Tensor:
    """Returns int64 [rows, length], padded on the right with 0."""
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
