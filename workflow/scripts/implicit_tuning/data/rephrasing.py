"""Rephrasing: responses that restate their instruction are replaced by rewrites that do not.

A response may hold its instruction ("The capital of Peru is Lima."), and then response tuning sees
instructions after all. The paper rules that out: 99 responses of LIMA that restate are rephrased,
and response tuning on them still wins 43.3 ± 5.3 % with OLMo.

This comes before instructions are blanked: both finding and rewriting need them.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from implicit_tuning.data.rewriters.cache import RewriteCache
from implicit_tuning.data.rewriters.rewriter import Exchange, Rewriter
from implicit_tuning.data.rows import Message
from implicit_tuning.remote.answer_cache import question_key

logger = logging.getLogger(__name__)

# Words that no request is about: those of grammar, and those by which one asks.
GRAMMAR = (
    "a an the and or but if of in on at to for from by with about as into than then through "
    "that this these those it its is are was were be been being am do does did have has had "
    "can could would should will shall may might must i me my we us our you your he him his she "
    "her they them their who what which when where why how there here not no so some any "
    "s t d m re ll ve don"
)
ASKING = "please tell give explain describe write name"
STOP_WORDS = frozenset(f"{GRAMMAR} {ASKING}".split())
FEWEST_WORDS = 2
_WORD = re.compile(r"[^\W_]+")
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")


@dataclass(frozen=True)
class RephraseReport:
    """What became of the responses of a data set.

    Attributes:
        n_responses: all of them, each turn of a conversation counted.
        n_restating: those that restate their instruction, by rule.
        n_unchanged: those that the rewriter left as they are.
        n_still_restating: those that restate their instruction afterwards, by the same rule.
        restating_rows: numbers of the source rows that they stand in.
    """

    n_responses: int
    n_restating: int
    n_rewritten: int
    n_unchanged: int
    n_still_restating: int
    restating_rows: list[int]


@dataclass(frozen=True)
class Restating:
    """A response that restates its instruction: where it stands, and both texts."""

    row: int
    turn: int
    exchange: Exchange


def rephrase(
    conversations: Mapping[int, list[Message]],
    rewriter: Rewriter,
    threshold: float,
    cache: Path,
    earlier_caches: Sequence[Path] = (),
) -> tuple[dict[int, list[Message]], RephraseReport]:
    """Returns the conversations with new responses in place of those that restate.

    Args:
        conversations: messages by the number of their source row, with their instructions.
        rewriter: is asked once for each different exchange that is not in the cache.
        cache: file of rewrites; each is kept there as soon as it is made.
        earlier_caches: files from which rewrites are carried over to it.

    Raises:
        RewritingFailed: a response has no rewrite in the end; the others are in the cache.
    """
    found = find_restating(conversations, threshold)
    exchanges = [restating.exchange for restating in found]
    rewrites = _rewrites(exchanges, rewriter, RewriteCache(cache, earlier_caches))
    rephrased = {row: list(messages) for row, messages in conversations.items()}
    for restating in found:
        message = rephrased[restating.row][restating.turn]
        text = rewrites[restating.exchange]
        rephrased[restating.row][restating.turn] = {**message, "content": text}
    return rephrased, _report(conversations, found, rewrites, threshold)


def find_restating(conversations: Mapping[int, list[Message]], threshold: float) -> list[Restating]:
    """Returns all responses that restate the turn before them, in order."""
    return [
        Restating(row, turn, exchange)
        for row, messages in conversations.items()
        for turn, exchange in _exchanges(messages)
        if restates(exchange, threshold)
    ]


def restates(exchange: Exchange, threshold: float) -> bool:
    """Returns whether a response restates its instruction.

    It does if its first sentence, or first line if that is shorter, has at least `threshold` (0 to
    1) of the instruction's different content words, as they are written but for case. With fewer
    than two content words an instruction has nothing to restate.
    """
    asked = _content_words(exchange.instruction)
    said = _content_words(_SENTENCE_END.split(exchange.response.strip(), maxsplit=1)[0])
    return len(asked) >= FEWEST_WORDS and len(asked & said) >= threshold * len(asked)


def _exchanges(messages: Sequence[Message]) -> list[tuple[int, Exchange]]:
    """Place of each response, with it and the turn that it answers."""
    return [
        (turn, Exchange(before["content"], message["content"]))
        for turn, (before, message) in enumerate(pairwise(messages), start=1)
        if (before["role"], message["role"]) == ("user", "assistant")
    ]


def _content_words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower())) - STOP_WORDS


def _rewrites(
    exchanges: Sequence[Exchange], rewriter: Rewriter, cache: RewriteCache
) -> dict[Exchange, str]:
    keys = {exchange: question_key(rewriter.rewriter_id, exchange) for exchange in exchanges}
    missing = [exchange for exchange, key in keys.items() if cache.get(key) is None]
    logger.info(
        "%d responses restate their instruction; %d of them are to be rewritten, %d have been",
        *(len(exchanges), len(missing), len(keys) - len(missing)),
    )
    for position, text in rewriter.rewrite(missing):
        cache.add({keys[missing[position]]: text})
    found = {exchange: cache.get(key) for exchange, key in keys.items()}
    return {exchange: text for exchange, text in found.items() if text is not None}


def _report(
    conversations: Mapping[int, list[Message]],
    found: Sequence[Restating],
    rewrites: Mapping[Exchange, str],
    threshold: float,
) -> RephraseReport:
    exchanges = [restating.exchange for restating in found]
    after = [Exchange(exchange.instruction, rewrites[exchange]) for exchange in exchanges]
    changed = [new != old for new, old in zip(after, exchanges, strict=True)]
    return RephraseReport(
        n_responses=sum(len(_exchanges(messages)) for messages in conversations.values()),
        n_restating=len(found),
        n_rewritten=sum(changed),
        n_unchanged=len(found) - sum(changed),
        n_still_restating=sum(restates(exchange, threshold) for exchange in after),
        restating_rows=sorted({restating.row for restating in found}),
    )
