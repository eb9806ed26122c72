"""Which examples each update averages over, and which process computes which of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Update:
    """The examples one step of the optimizer averages over, by position; epochs count from 1."""

    epoch: int
    positions: tuple[int, ...]


def plan_updates(examples: int, seed: int, epochs: int, batch_examples: int) -> list[Update]:
    """A fresh permutation of the examples every epoch, decided by seed and epoch alone, cut into
    updates. The last update of an epoch averages over what is left."""
    updates = []
    for epoch in range(1, epochs + 1):
        order = np.random.default_rng([seed, epoch]).permutation(examples).tolist()
        starts = range(0, examples, batch_examples)
        updates += [Update(epoch, tuple(order[i : i + batch_examples])) for i in starts]
    return updates


def shares(lengths: Sequence[int], processes: int) -> list[list[int]]:
    """Deal the examples of an update to processes, each about as many tokens as the others.

    Longest first, each to the process that has the fewest tokens so far. A process may get none
    where there are fewer examples than processes. `lengths` are the tokens of each example. Returns
    the positions of the examples, by process; the same for the same lengths.
    """
    dealt: list[list[int]] = [[] for _ in range(processes)]
    tokens = [0] * processes
    for position in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fewest = tokens.index(min(tokens))
        dealt[fewest].append(position)
        tokens[fewest] += lengths[position]
    return dealt
