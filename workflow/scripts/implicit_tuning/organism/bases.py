"""The recipes of the shipped bases, by name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

# Share of each kind of document, in characters (see corpus.DocumentMaker).
MIX = {
    "answers": 0.44,
    "articles": 0.14,
    "requests": 0.06,
    "tagged_requests": 0.12,
    "titled": 0.08,
    "records": 0.07,
    "stories": 0.04,
    "games": 0.02,
    "tagged_games": 0.018,
    "tagged_answers": 0.012,
}


@dataclass(frozen=True)
class BaseRecipe:
    """How a base is pretrained. `seed` decides corpus, initialization and order."""

    architecture: Literal["llama", "olmo"]
    seed: int
    mix: Mapping[str, float] = field(default_factory=lambda: dict(MIX))
    vocabulary: int = 1024
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    feed_forward: int = 320
    context: int = 192
    steps: int = 3600
    batch_sequences: int = 8
    learning_rate: float = 3e-3
    warmup_steps: int = 100


# The OLMo base learns to copy later than the Llama base does: it gets more text that repeats itself,
# and more steps.
OLMO_MIX = {**MIX, "articles": 0.12, "requests": 0.05, "titled": 0.07, "records": 0.11}

RECIPES: Mapping[str, BaseRecipe] = {
    "organism-llama": BaseRecipe("llama", seed=1),
    "organism-olmo": BaseRecipe("olmo", seed=2, mix=OLMO_MIX, steps=4600),
}
