"""How much each example counts in the loss of one update.

The paper's loss weighs examples alike: the mean over an update's examples of each example's mean
token loss. Here every example gets one weight per token, known before the forward pass, so that a
sum over any split into micro-batches is the same loss.
"""

from collections.abc import Sequence
from typing import Literal

Weighting = Literal["example", "token"]

IGNORED = -100  # label of a token without loss; torch's and transformers' value


def token_weights(loss_tokens: Sequence[int], weighting: Weighting) -> list[float]:
    """The weight of each loss token, one number an example.

    Args:
        loss_tokens: how many loss tokens each example of the update has, all at least 1.
        weighting: "example" weighs examples alike (paper), "token" weighs tokens alike, so that
            long responses count more (the default of most trainers).
    """
    if weighting == "example":
        return [1 / (len(loss_tokens) * count) for count in loss_tokens]
    if weighting == "token":
        return [1 / sum(loss_tokens)] * len(loss_tokens)
    raise ValueError(f"weighting {weighting!r} is neither 'example' nor 'token'")
