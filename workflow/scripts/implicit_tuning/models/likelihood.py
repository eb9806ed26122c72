"""How likely a model finds a response: mean log-probability of its tokens, given the chat prompt.

The measure of the paper's response ranking, and of the judge that is a base model.

Responses to one prompt are scored in one row: the prompt stands there once, the responses behind
it. A mask keeps each from seeing the others, and the positions of each count on from the prompt.
So the prompt is computed once, and rows have next to no padding.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from implicit_tuning.models.chat import ChatFormat, tokenize_conversation, tokenize_response

PromptAndResponse = tuple[list[int], list[int]]  # token ids of both

# Tokens of a row with several responses. Each token's attention is computed over the whole row, so
# that beyond this a row loses more than its prompt saves.
SHARED_ROW_TOKENS = 1_024


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
    if chat_format.own_template:
        return tokenize_response(instruction, response, tokenizer)
    turns = [
        {"role": "user", "content": instruction},
        {"role": "assistant", "content": response},
    ]
    whole = tokenize_conversation(turns, tokenizer, chat_format, sys.maxsize)
    return list(whole.input_ids[prompt_length:-1])


@dataclass
class _Row:
    """A prompt and responses to it; `places` are those of the responses in the caller's list."""

    prompt: list[int]
    responses: list[list[int]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.prompt) + sum(map(len, self.responses))

    def input_ids(self) -> list[int]:
        return self.prompt + [token for response in self.responses for token in response]

    def positions(self) -> list[int]:
        """Place of each token in its own text, prompt and response."""
        start = len(self.prompt)
        behind = [start + i for response in self.responses for i in range(len(response))]
        return [*range(start), *behind]

    def parts(self) -> list[int]:
        """0 for a token of the prompt, n for one of the n-th response."""
        behind = [n for n, response in enumerate(self.responses, 1) for _ in response]
        return [0] * len(self.prompt) + behind

    def predictors(self) -> list[int]:
        """For each token of the responses, the place in the row whose logits predict it."""
        places = []
        start = len(self.prompt)
        for response in self.responses:
            places += [len(self.prompt) - 1, *range(start, start + len(response) - 1)]
            start += len(response)
        return places


@torch.inference_mode()
def mean_logprobs(
    model: PreTrainedModel,
    sequences: Sequence[PromptAndResponse],
    batch_size: int,
    progress: str | None = None,
) -> list[float | None]:
    """The mean log-probability (nats a token) of each response given its prompt, in input order.

    Whatever the model's dtype, log-probabilities are float32. Sequences are (prompt ids, response
    ids); no prompt is empty. An empty response has no mean, which is returned as None. Rows of like
    length go together.
    """
    means: list[float | None] = [None] * len(sequences)
    with tqdm(total=len(sequences), desc=progress, unit="text", disable=progress is None) as bar:
        for batch in _batches(_rows(model, sequences, batch_size), batch_size):
            places = [place for row in batch for place in row.places]
            try:
                found = _batch_means(model, batch)
            except torch.OutOfMemoryError as error:
                raise MemoryError(
                    f"batch_size is {batch_size}, and the GPU's memory does not hold {len(batch)} "
                    f"rows of up to {max(map(len, batch))} tokens: lower it"
                ) from error
            for place, mean in zip(places, found, strict=True):
                means[place] = mean
            bar.update(len(places))
    return means


def _rows(
    model: PreTrainedModel, sequences: Sequence[PromptAndResponse], batch_size: int
) -> list[_Row]:
    """All that is to be scored, the longest rows first: memory runs out at once or never, and
    hardly anything is padding."""
    longest = max((len(prompt) + len(response) for prompt, response in sequences), default=0)
    most = batch_size if _can_share_prompts(model, longest) else 1
    rows: list[_Row] = []
    filling: dict[tuple[int, ...], _Row] = {}  # by prompt
    for place, (prompt, response) in enumerate(sequences):
        if not response:
            continue
        row = filling.get(tuple(prompt))
        if (
            row is None
            or len(row.responses) == most
            or len(row) + len(response) > SHARED_ROW_TOKENS
        ):
            row = filling[tuple(prompt)] = _Row(prompt)
            rows.append(row)
        row.responses.append(response)
        row.places.append(place)
    return sorted(rows, key=len, reverse=True)


def _can_share_prompts(model: PreTrainedModel, longest: int) -> bool:
    """Whether mask and positions say all of what stands before a token, in texts of this length.

    Not so where attention counts distances itself (ALiBi), where layers hand on a state (Mamba),
    and where a layer's window is shorter than the text: responses of such models are scored each
    behind a prompt of its own, in rows that need no mask.
    """
    config = model.config.get_text_config()
    rotary = getattr(config, "rope_parameters", None) and not getattr(config, "alibi", False)
    window = getattr(config, "sliding_window", None) or longest
    layers = set(getattr(config, "layer_types", None) or ())
    return (
        bool(rotary)
        and longest <= window
        and layers <= {"full_attention", "sliding_attention"}
        and config._attn_implementation in ("sdpa", "eager")
    )


def _batches(rows: Sequence[_Row], size: int) -> Iterator[list[_Row]]:
    """Rows with at most `size` responses together."""
    batch: list[_Row] = []
    responses = 0
    for row in rows:
        if batch and responses + len(row.responses) > size:
            yield batch
            batch, responses = [], 0
        batch.append(row)
        responses += len(row.responses)
    if batch:
        yield batch


def _batch_means(model: PreTrainedModel, batch: Sequence[_Row]) -> list[float]:
    """Means of all responses of a batch, row after row."""
    # Padding stands on the right, where causal attention never looks back at it.
    input_ids = _padded([row.input_ids() for row in batch])
    width = input_ids.shape[1]
    predictors = torch.tensor(
        [number * width + place for number, row in enumerate(batch) for place in row.predictors()]
    )
    # Several responses begin behind the same token of a prompt, whose logits are computed once.
    kept, order = predictors.unique(return_inverse=True)
    has_logits = torch.zeros(input_ids.numel(), dtype=torch.bool)
    has_logits[kept] = True
    logits = model(
        input_ids=input_ids.to(model.device),
        logits_to_keep=has_logits.view_as(input_ids).to(model.device),
        use_cache=False,
        **_sharing(model, batch),
    ).logits  # [kept, vocabulary]
    if logits.ndim == 3:  # of a model that cannot leave any out
        logits = logits[has_logits.view_as(input_ids).to(model.device)]
    responses = [response for row in batch for response in row.responses]
    targets = torch.tensor([token for response in responses for token in response])
    scores = logits.float().log_softmax(-1)[order.to(model.device), targets.to(model.device)]
    return [part.mean().item() for part in scores.double().split([len(r) for r in responses])]


def _sharing(model: PreTrainedModel, batch: Sequence[_Row]) -> dict[str, torch.Tensor]:
    """Positions [rows, width] and additive mask [rows, 1, width, width] for rows with several
    responses; nothing for rows with one, which are plain text."""
    if all(len(row.responses) == 1 for row in batch):
        return {}
    parts = _padded([row.parts() for row in batch]).to(model.device)
    seen, seeing = parts[:, None, :], parts[:, :, None]
    width = parts.shape[1]
    earlier = torch.ones(width, width, dtype=torch.bool, device=model.device).tril()
    hidden = ~(earlier & ((seen == 0) | (seen == seeing)))
    # Numbers, since eager attention adds the mask, and would add a Boolean one as 0 and 1.
    mask = torch.zeros(hidden.shape, dtype=model.dtype, device=model.device)
    mask.masked_fill_(hidden, torch.finfo(model.dtype).min)
    positions = _padded([row.positions() for row in batch]).to(model.device)
    return {"position_ids": positions, "attention_mask": mask[:, None]}


def _padded(rows: Sequence[list[int]]) -> torch.Tensor:
    """Returns int64 [rows, length], padded on the right with 0."""
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
