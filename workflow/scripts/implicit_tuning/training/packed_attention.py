"""Attention within each example of one flattened row.

Examples of different lengths lie one after the other in a row of shape (1, tokens), without
padding. A model of transformers takes these functions through its attention interface, and no
mask is built for them. Where the examples begin and end comes as the keyword `packing`, which the
model hands down to its attention layers.
"""

from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Literal, NamedTuple

import torch
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

Attention = Literal["sdpa", "eager", "varlen"]

# Keywords of attention layers that change nothing here.
HARMLESS = {
    "position_ids",
    "use_cache",
    "cache",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
}


class Packing(NamedTuple):
    """Where the examples of a row lie.

    Attributes:
        lengths: tokens of each example.
        boundaries: (examples + 1,), int32, on the device of the row: the first token of each
            example, and the number of tokens of the row.
    """

    lengths: tuple[int, ...]
    boundaries: torch.Tensor

    @classmethod
    def of(cls, lengths: tuple[int, ...], device: torch.device) -> "Packing":
        """The packing of examples of these lengths."""
        boundaries = [0, *accumulate(lengths)]
        return cls(lengths, torch.tensor(boundaries, dtype=torch.int32, device=device))


def attention_implementation(attention: Attention, device: Literal["cpu", "cuda"]) -> str:
    """Make an attention known to transformers; returns its name for `attn_implementation`.

    "sdpa" calls torch's scaled_dot_product_attention for each example, "varlen" one kernel for the
    whole row (CUDA, half precision); "eager" is written out.

    Raises:
        ValueError: the attention is unknown, or does not run on this device.
    """
    if attention not in FUNCTIONS:
        raise ValueError(f"attention {attention!r} is unknown: choose from {', '.join(FUNCTIONS)}")
    if attention == "varlen" and device != "cuda":
        raise ValueError(
            f"attention 'varlen' does not run on device {device!r}: set attention to 'sdpa'"
        )
    AttentionInterface.register(IMPLEMENTATIONS[attention], FUNCTIONS[attention])
    return IMPLEMENTATIONS[attention]


def sdpa_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **keywords: object,
) -> tuple[torch.Tensor, None]:
    """One call of scaled_dot_product_attention an example.

    `query` is (1, heads, tokens, size of a head); `key` and `value` are (1, key and value heads,
    tokens, size of a head). Returns (1, tokens, heads, size of a head), and no attention weights.

    Raises:
        ValueError: the layer asks for what is not done here.
    """
    lengths = _packing(module, query, attention_mask, keywords).lengths
    outputs = [
        functional.scaled_dot_product_attention(
            queries,
            keys,
            values,
            dropout_p=dropout,
            is_causal=True,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        ).transpose(1, 2)
        for queries, keys, values in _examples(lengths, query, key, value)
    ]
    return torch.cat(outputs, dim=1), None


def eager_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **keywords: object,
) -> tuple[torch.Tensor, None]:
    """The formula, one example at a time, softmax in fp32; as `sdpa_attention` otherwise."""
    lengths = _packing(module, query, attention_mask, keywords).lengths
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    groups = query.shape[1] // key.shape[1]
    outputs = []
    for queries, keys, values in _examples(lengths, query, key, value):
        keys, values = (part.repeat_interleave(groups, dim=1) for part in (keys, values))
        scores = queries @ keys.transpose(2, 3) * scale
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        shares = scores.masked_fill(future, -torch.inf).softmax(-1, torch.float32).to(query.dtype)
        outputs.append((functional.dropout(shares, dropout) @ values).transpose(1, 2))
    return torch.cat(outputs, dim=1), None


def varlen_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **keywords: object,
) -> tuple[torch.Tensor, None]:
    """One kernel for all examples, on CUDA in half precision; as `sdpa_attention` otherwise."""
    packing = _packing(module, query, attention_mask, keywords)
    parts = _as_autocast(query, key, value)
    _require_half_precision(parts[0])
    if dropout:
        raise ValueError(
            f"attention 'varlen' has no dropout, but {type(module).__name__} asks for {dropout}: "
            "set attention to 'sdpa'"
        )
    longest = max(packing.lengths)
    queries, keys, values = (part[0].transpose(0, 1) for part in parts)
    output: Any = varlen_attn(
        queries,
        keys,
        values,
        packing.boundaries,
        packing.boundaries,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, 0),  # causal
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return output[None], None


def _as_autocast(*parts: torch.Tensor) -> list[torch.Tensor]:
    """Tensors as autocast would hand them on, which knows nothing of the kernel: rotated queries and
    keys are fp32, values are not."""
    kind = parts[0].device.type
    active = torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if active else parts[0].dtype
    return [part.to(dtype) for part in parts]


def _require_half_precision(query: torch.Tensor) -> None:
    if query.device.type != "cuda" or query.dtype not in (torch.bfloat16, torch.float16):
        raise ValueError(
            f"attention 'varlen' needs half precision on cuda, not {query.dtype} on "
            f"{query.device.type}: set compute_dtype to 'bfloat16', or attention to 'sdpa'"
        )


FUNCTIONS = {"sdpa": sdpa_attention, "eager": eager_attention, "varlen": varlen_attention}
IMPLEMENTATIONS = {attention: f"packed_{attention}" for attention in FUNCTIONS}


def _packing(
    module: torch.nn.Module,
    query: torch.Tensor,
    attention_mask: torch.Tensor | None,
    keywords: dict[str, Any],
) -> Packing:
    """The packing of a call that asks for nothing but causal attention within examples."""
    layer = type(module).__name__
    given = {name: value for name, value in keywords.items() if value is not None}
    packing, window = given.pop("packing", None), given.pop("sliding_window", None)
    causal = given.pop("is_causal", getattr(module, "is_causal", True))
    if packing is None:
        raise ValueError(
            f"{layer} does not know where the examples of its row lie: the model has to be called "
            "through PackedLoss, and to hand `packing` down to its attention layers"
        )
    if unknown := sorted(given.keys() - HARMLESS):
        raise ValueError(f"{layer} asks for {', '.join(unknown)}, which packed attention lacks")
    if attention_mask is not None or not causal or query.shape[::2] != (1, sum(packing.lengths)):
        raise ValueError(f"{layer} is not causal over one row of {sum(packing.lengths)} tokens")
    if window is not None and max(packing.lengths) > window:
        raise ValueError(
            f"an example of {max(packing.lengths)} tokens is longer than the sliding window of "
            f"{layer}, {window}, which packed attention lacks: set max_length to at most {window}"
        )
    return packing


def _examples(lengths: tuple[int, ...], *parts: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    # `split` has one cheap backward; slices would each fill a gradient of the whole row.
    return zip(*(part.split(lengths, dim=2) for part in parts), strict=True)
