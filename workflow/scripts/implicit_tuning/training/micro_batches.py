"""The loss of a micro-batch without padding.

The examples of a micro-batch lie one after the other in one row, each with its own positions and
its own attention (`packed_attention`), so that every computed token is a token of an example.
Logits are computed only where there is a loss, a chunk at a time, and again in the backward pass:
those of all tokens never lie in memory at once.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import distributed
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from implicit_tuning.training.packed_attention import (
    IMPLEMENTATIONS,
    Packing,
    attention_implementation,
)
from implicit_tuning.training.weighting import IGNORED

CHUNK_TOKENS = 1024  # tokens whose logits lie in memory at once, at most
ATTENTION_LAYERS = {"full_attention", "sliding_attention"}  # words of transformers' `layer_types`


def micro_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Group examples into micro-batches of at most `max_tokens` tokens.

    A longer example is alone. Longest first, each into the first group with room: few groups, and
    a step that does not fit into memory fails at its beginning. `lengths` are the tokens of each
    example. Returns the positions of the examples, by group; the same for the same lengths.
    """
    groups: list[list[int]] = []
    room: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[position]
        group = next((g for g, free in enumerate(room) if free >= length), None)
        if group is None:
            groups.append([position])
            room.append(max_tokens - length)
        else:
            groups[group].append(position)
            room[group] -= length
    return groups


class PackedLoss(torch.nn.Module):
    """A causal language model that returns its loss on a flattened row of examples.

    What a trainer wraps for several processes is this module: all of the model runs within its
    `forward`. Processes call it equally often.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        """Refuse models whose packed examples do not give what each gives alone.

        The model was loaded with an `attention_implementation`; it may have adapters of peft. It is
        run on a few tokens, unless another process holds its weights.

        Raises:
            ValueError: the model does not attend through the interface of transformers, mixes
                examples, or does more than one linear layer between hidden states and logits.
        """
        super().__init__()
        _require_interfaces(model)
        if all(weight.numel() and not weight.is_meta for weight in model.parameters()):
            _require_packable(model)
        self.model = model

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        lengths: tuple[int, ...],
        predicting: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        """The weighted sum of token losses, a scalar in fp32.

        Args:
            input_ids: (1, tokens), the examples one after the other.
            position_ids: (1, tokens), from 0 in each example.
            lengths: tokens of each example.
            predicting: (loss tokens,), the tokens of the row whose successor has a loss.
            targets: (loss tokens,), those successors.
            weights: (loss tokens,), fp32.
        """
        decoder = self.model.get_decoder()
        states = decoder(**_keywords(input_ids, position_ids, lengths)).last_hidden_state[0]
        hidden = states.index_select(0, predicting)
        chunks = _number_of_chunks(len(targets), hidden.device)
        parts = zip(
            *(part.tensor_split(chunks) for part in (hidden, targets, weights)), strict=True
        )
        if chunks == 1:
            return self._chunk_loss(*next(parts))
        losses = [checkpoint(self._chunk_loss, *part, use_reentrant=False) for part in parts]
        return torch.stack(losses).sum()

    def _chunk_loss(
        self, hidden: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        logits = self.model.get_output_embeddings()(hidden).float()
        # Not a product of vectors, which autocast would take in half precision.
        return (functional.cross_entropy(logits, targets, reduction="none") * weights).sum()


def packed_loss(
    model: torch.nn.Module,
    input_ids: Sequence[Sequence[int]],
    labels: Sequence[Sequence[int]],
    weights: Sequence[float],
) -> torch.Tensor:
    """The part of an update's loss that a micro-batch adds; the parts sum to the whole.

    ¶`model` is a `PackedLoss`, as it is or wrapped for several processes. Returns a scalar in fp32
    that `backward` can be called on.

    Args:
        labels: the same tokens, `IGNORED` where there is no loss; the first of an example has no
            token that predicts it and never counts.
        weights: the weight of a loss token, one number an example, from `token_weights` over the
            whole update. With 0 an example gives a gradient of zeros.
    """
    predicting, targets, token_weights, start = [], [], [], 0
    for example, weight in zip(labels, weights, strict=True):
        counted = [i for i, label in enumerate(example) if i and label != IGNORED]
        predicting += [start + i - 1 for i in counted]
        targets += [example[i] for i in counted]
        token_weights += [weight] * len(counted)
        start += len(example)
    device = next(model.parameters()).device
    return model(
        *_row(input_ids, device),
        torch.tensor(predicting, dtype=torch.long, device=device),
        torch.tensor(targets, dtype=torch.long, device=device),
        torch.tensor(token_weights, dtype=torch.float32, device=device),
    )


def _row(
    input_ids: Sequence[Sequence[int]], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, tuple[int, ...]]:
    """Examples one after the other: input ids and positions, both (1, tokens), and lengths."""
    ids = [token for example in input_ids for token in example]
    positions = [i for example in input_ids for i in range(len(example))]
    tokens, places = (torch.tensor([row], device=device) for row in (ids, positions))
    return tokens, places, tuple(map(len, input_ids))


def _keywords(
    input_ids: torch.Tensor, position_ids: torch.Tensor, lengths: tuple[int, ...]
) -> dict[str, Any]:
    """What a model or its decoder is called with."""
    return {
        "input_ids": input_ids,
        "position_ids": position_ids,
        "use_cache": False,
        "packing": Packing.of(lengths, input_ids.device),
    }


def _number_of_chunks(tokens: int, device: torch.device) -> int:
    chunks = max(1, math.ceil(tokens / CHUNK_TOKENS))
    if not (distributed.is_available() and distributed.is_initialized()):
        return chunks
    # Where the weights of the head are sharded, every call gathers them from all processes: all
    # have to call it equally often.
    most = torch.tensor(chunks, device=device)
    distributed.all_reduce(most, distributed.ReduceOp.MAX)
    return int(most)


def _require_interfaces(model: PreTrainedModel) -> None:
    """Refuse attention that would see other examples, before anything is run."""
    name, attention = type(model).__name__, model.config._attn_implementation
    if attention not in IMPLEMENTATIONS.values():
        raise ValueError(
            f"{name} has attention {attention!r}, which mixes the examples of a row: load it with "
            "attn_implementation=attention_implementation(...)"
        )
    layers = set(getattr(model.config, "layer_types", None) or ())
    if not model.is_backend_compatible() or layers - ATTENTION_LAYERS:
        raise ValueError(
            f"{name} does not attend, or not in all layers, through the interface of transformers, "
            "and would mix the examples of a row: choose a base of another architecture"
        )
    if model.get_output_embeddings() is None or model.get_decoder() is model:
        raise ValueError(
            f"{name} names no decoder and head of its own, which PackedLoss calls one after the "
            "other: choose a base of another architecture"
        )


def _require_packable(model: PreTrainedModel) -> None:
    """Run two short examples in one row, and compare with what the model itself makes of them."""
    name, (first, second) = type(model).__name__, ([0, 1, 2, 3, 4], [2, 1, 0, 3])
    packed, logits, head_inputs, head_outputs = _probe(model, [first, second])
    alone, *_ = _probe(model, [second])
    difference = ((packed[0, len(first) :] - alone[0]).norm() / alone.norm()).item()
    if not difference < torch.finfo(packed.dtype).eps ** 0.5:
        raise ValueError(
            f"{name} mixes the examples of a row (one differs by {difference:.1e} from itself "
            "alone): choose a base of another architecture"
        )
    if not (torch.equal(head_inputs, packed) and torch.equal(logits, head_outputs)):
        raise ValueError(
            f"{name} has more than one linear layer between hidden states and logits (a scale, a "
            "soft cap), which PackedLoss does not compute: choose a base of another architecture"
        )


@torch.no_grad()
def _probe(model: PreTrainedModel, examples: list[list[int]]) -> list[torch.Tensor]:
    """Last hidden states, logits, and what went into and came out of the head: (1, tokens, size).

    Without dropout, and with an attention that runs on any device.
    """
    seen: list[torch.Tensor] = []
    training, attention = model.training, model.config._attn_implementation
    model.eval().set_attn_implementation(attention_implementation("sdpa", "cpu"))
    hook = model.get_output_embeddings().register_forward_hook(
        lambda _, inputs, output: seen.extend((inputs[0], output))
    )
    try:
        keywords = _keywords(*_row(examples, model.device))
        hidden = model.get_decoder()(**keywords).last_hidden_state
        return [hidden, model(**keywords).logits, *seen]
    finally:
        hook.remove()
        model.train(training).set_attn_implementation(attention)
