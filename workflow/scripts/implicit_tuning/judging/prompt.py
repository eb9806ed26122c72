"""AlpacaEval 2's question to a judge that is a language model, and the reading of its answer.

The template is alpaca-eval's own file. It is split into chat messages *before* its slots are
filled, all slots in one pass, and chat markers inside a text are broken up: whatever an output
contains, it fills no slot, opens no message and ends none.
"""

import hashlib
import importlib.util
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from implicit_tuning.judging.judge import Pair, Verdict
from implicit_tuning.remote.spending import (
    PROMPT_TOKENS,
    TOKENS_A_CHARACTER_OF_INSTRUCTION,
    TOKENS_A_CHARACTER_OF_OUTPUT,
)

TEMPLATE = "evaluators_configs/alpaca_eval_clf_gpt4_turbo/alpaca_eval_clf.txt"
# The names by which the template calls output_1 and output_2.
LABELS = ("m", "M")
# Two such sides are about 10,000 tokens, which leaves room in a context of 16 k.
MAX_OUTPUT_CHARACTERS = 20_000

_MESSAGE = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", re.DOTALL)
_SLOT = re.compile(r"\{(instruction|output_1|output_2)\}")
# What the chat formats of common models use to open or close a turn. A server that tokenises the
# whole chat as one text would obey it in an output.
_CHAT_MARKER = re.compile(
    r"<[|｜][^<>\s]{1,40}[|｜]>|</?s>|<(?:bos|eos)>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>"
)
_TEXT_ANSWER = re.compile(r"\W*([mM])\W*")


def messages(pair: Pair) -> list[dict[str, str]]:
    """Returns the chat (role and content) that asks which output of the pair is better."""
    texts = {name: _harmless(text) for name, text in pair._asdict().items()}
    return [
        {"role": role, "content": _SLOT.sub(lambda slot: texts[slot[1]], content)}
        for role, content in _template_messages()
    ]


def prompt_sha256() -> str:
    """Returns the digest of the installed template, for the identity of a judge."""
    return hashlib.sha256(_template().encode()).hexdigest()


def cap(text: str, limit: int) -> tuple[str, bool]:
    """Returns the first `limit` characters of the text, and whether any were cut off."""
    return text[:limit], len(text) > limit


def capped(pair: Pair, limit: int) -> tuple[Pair, int]:
    """Returns the pair with both outputs cut at the same length, and how many (0 to 2) were."""
    output_1, cut_1 = cap(pair.output_1, limit)
    output_2, cut_2 = cap(pair.output_2, limit)
    return Pair(pair.instruction, output_1, output_2), cut_1 + cut_2


def verdict_from_logprobs(logprobs: Mapping[str, float], n_cut: int = 0) -> Verdict:
    """Returns the weighted verdict 2 - P("m"), P over the two labels alone.

    `logprobs` are the log-probabilities of answer tokens, others than the labels among them or
    not. As in alpaca-eval's `logprob_parser`, a label that is missing has probability 0, and
    without any there is no verdict (parse_failed).
    """
    known = {label: _finite(logprobs.get(label)) for label in LABELS}
    given = [value for value in known.values() if value is not None]
    if not given:
        return Verdict(None, "parse_failed", n_cut=n_cut)
    # Against the larger one, so that exp never overflows and the sum is never zero.
    weights = [0.0 if v is None else math.exp(v - max(given)) for v in known.values()]
    return Verdict(2 - weights[0] / sum(weights), logprobs=known, n_cut=n_cut)


def verdict_from_text(text: str, n_cut: int = 0) -> Verdict:
    """Returns the discrete verdict (1 or 2) of an answer that is one label, else parse_failed."""
    answer = _TEXT_ANSWER.fullmatch(text)
    if answer is None:
        return Verdict(None, "parse_failed", n_cut=n_cut)
    return Verdict(1.0 + LABELS.index(answer[1]), n_cut=n_cut)


def _finite(logprob: float | None) -> float | None:
    return logprob if logprob is not None and math.isfinite(logprob) else None


@cache
def _template() -> str:
    # Found without importing the package, which takes seconds.
    package = importlib.util.find_spec("alpaca_eval")
    assert package and package.origin  # a dependency of ours, with an __init__.py
    return (Path(package.origin).parent / TEMPLATE).read_text(encoding="utf-8")


@cache
def _template_messages() -> tuple[tuple[str, str], ...]:
    return tuple((role, content.strip()) for role, content in _MESSAGE.findall(_template()))


def _harmless(text: str) -> str:
    """The text with a space inside each chat marker, and without halves of surrogate pairs."""
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _CHAT_MARKER.sub(lambda marker: f"{marker[0][0]} {marker[0][1:]}", whole)


def estimated_tokens(pairs: Sequence[Pair]) -> int:
    """Returns about how many tokens the questions about these pairs have."""
    instructions = sum(len(pair.instruction) for pair in pairs)
    outputs = sum(len(pair.output_1) + len(pair.output_2) for pair in pairs)
    return round(
        PROMPT_TOKENS * len(pairs)
        + TOKENS_A_CHARACTER_OF_INSTRUCTION * instructions
        + TOKENS_A_CHARACTER_OF_OUTPUT * outputs
    )
