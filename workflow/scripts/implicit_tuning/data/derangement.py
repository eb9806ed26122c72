"""Texts given to other places: none stays where an equal one was."""

import random
from collections import Counter
from collections.abc import Sequence


def other_places(texts: Sequence[str], seed: int) -> list[int]:
    """For each place another one to take the text of, each once, never an equal text.

    Equal texts stand together in a random order of the texts, and each place takes the one half the
    list away.

    Raises:
        ValueError: more than half of the texts are equal, or there are fewer than two.
    """
    distinct = sorted(set(texts))
    random.Random(seed).shuffle(distinct)
    rank = {text: place for place, text in enumerate(distinct)}
    order = sorted(range(len(texts)), key=lambda place: rank[texts[place]])
    half = len(texts) // 2
    if len(texts) < 2 or max(Counter(texts).values()) > half:
        raise ValueError(
            f"{len(texts)} texts, of which {len(distinct)} differ, cannot change places without an "
            "equal one staying where it was: more variety is needed"
        )
    givers = dict(zip(order, order[half:] + order[:half], strict=True))
    return [givers[place] for place in range(len(texts))]
