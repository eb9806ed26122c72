"""Guard: constrained decoding. Each token must lead on to a text of the task's grammar.

llguidance says which tokens those are, byte by byte, so that no text of the grammar is out of reach
and an answer that lies in the grammar anyway comes out as it was. What the model says off its task
is forced into the task's form, not refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from implicit_tuning.generation.generate import Answerer, GenerationSettings
from implicit_tuning.generation.guards.compiling import compiled
from implicit_tuning.models.chat import ChatFormat
from implicit_tuning.nodes.job import Job


def answer(job: Job) -> dict[str, Any]:
    """Answer the node's instructions under its grammar; returns the counts.

    `n_length` answers were cut before the grammar was through with them: they are no texts of it.

    Raises:
        ValueError: the engine is not transformers, or see `Grammar`.
    """
    settings = GenerationSettings(**job.settings["generation"])
    if settings.engine != "transformers":
        raise ValueError(
            f"generation.engine is {settings.engine!r}, but a guard of kind 'grammar' chooses among "
            "tokens in 'transformers' alone: set engine to 'transformers'"
        )
    chat_format = ChatFormat(**job.settings["chat"])
    with Answerer(job.read("model"), chat_format, settings, None, job.runtime) as answerer:
        grammar = Grammar(job.settings["guard"], answerer.tokenizer, answerer.engine.ends)
        engine: Any = answerer.engine  # that of transformers, which alone takes a constraint
        engine.constraint = grammar.constraint
        instructions = job.read("instructions", "instructions.jsonl")
        report = answerer.answer(instructions, job.data, job.settings["generator"])
    return asdict(report)


class Grammar:
    """A grammar over the tokens of one tokenizer; makes a constraint for each batch.

    A guard has `regex` (all of an answer must match) or `lark` (llguidance's dialect). The
    tokenizer has byte-level or byte-fallback tokens. Any of `ends` may come where the grammar is
    through.

    Raises:
        ValueError: the grammar is wrong, or llguidance cannot read the tokenizer.
    """

    def __init__(
        self, guard: Mapping[str, str], tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]
    ) -> None:
        text = compiled(guard)
        self.ends = frozenset(ends)
        self.tokens = _read_tokens(tokenizer, ends)
        self._start = LLMatcher(self.tokens, text)

    def constraint(self) -> "GrammarConstraint":
        """A constraint for one call of `generate`."""
        return GrammarConstraint(self)

    def new_matcher(self) -> LLMatcher:
        """What follows one answer from its first token on."""
        return self._start.deep_copy()


def _read_tokens(tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]) -> LLTokenizer:
    try:
        return from_tokenizer(tokenizer, eos_token=list(ends))
    except ValueError as error:
        raise ValueError(
            f"guard.kind is 'grammar', and llguidance cannot read the tokens of the tokenizer in "
            f"{tokenizer.name_or_path or 'memory'} ({error}): take another kind of guard"
        ) from None


class GrammarConstraint(LogitsProcessor):
    """Leaves each row the tokens that its grammar allows, one call of `generate` long.

    The first call is on the prompts, whatever their padding: the grammar begins behind them. A row
    that is at its end is let alone; `generate` fills it up with EOS.
    """

    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
        # One a row; None once it is at its end.
        self.matchers: list[LLMatcher | None] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """
        Args:
            input_ids: (rows, tokens), prompt and answer so far.
            scores: (rows, vocabulary), logits of the next token.

        Returns:
            (rows, vocabulary): the logits, minus infinity where the grammar allows no such token.

        Raises:
            ValueError: llguidance gave up, such as on a grammar that takes too much work.
        """
        if self.matchers:
            self._follow(input_ids[:, -1].tolist())
        else:
            self.matchers = [self.grammar.new_matcher() for _ in range(len(input_ids))]
        allowed = torch.from_numpy(self._allowed(scores.shape[1])).to(scores.device)
        return scores.masked_fill(~allowed, -torch.inf)

    def _follow(self, newest: list[int]) -> None:
        for row, token in enumerate(newest):
            if token in self.grammar.ends:
                self.matchers[row] = None
            elif (matcher := self.matchers[row]) and not matcher.consume_token(token):
                raise ValueError(f"the grammar cannot be followed: {matcher.get_error()}")

    def _allowed(self, width: int) -> np.ndarray:
        """Which tokens may come next, (rows, width). The model's vocabulary can be wider than the
        tokenizer's: what no token stands for may never come."""
        known = self.grammar.tokens.vocab_size
        masks = allocate_token_bitmask(len(self.matchers), known)  # all bits set
        for row, matcher in enumerate(self.matchers):
            if matcher:
                fill_next_token_bitmask(matcher, masks, row)
        bits = np.unpackbits(masks.view(np.uint8), axis=1, bitorder="little")[:, :known]
        return np.pad(bits, ((0, 0), (0, max(0, width - known))))[:, :width].astype(bool)
