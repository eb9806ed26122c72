"""The rules' scores for a batch whose texts come and go, as in continuous batching.

`RuleAdapter` serves texts that begin and end together. Here each text has a slot, and enters it and
leaves it when it likes; the scores are the same.
"""

from copy import copy
from dataclasses import asdict

import torch
from transformers import PreTrainedTokenizerBase

from implicit_tuning.models.chat import ChatFormat
from implicit_tuning.models.rule_adapter import RuleAdapter, RuleSettings, UserTag


class RuleRows:
    """A row of scores for each slot, kept up to date token by token.

    `slots` is the number of texts at once, `vocabulary` the width of the logits.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        settings: RuleSettings,
        chat_format: ChatFormat,
        slots: int,
        vocabulary: int,
        device: torch.device,
    ) -> None:
        self.adapter = RuleAdapter(tokenizer, **asdict(settings), chat_format=chat_format)
        self.user_tag = UserTag(chat_format.user, tokenizer)
        self.remembers = "repetition" in settings.rules
        self.fresh = torch.zeros(vocabulary, device=device)
        for piece, token in self.adapter.resolved.items():
            self.fresh[token] = settings.bias[piece]
        self.seen = self.fresh - settings.repetition_penalty  # (vocabulary,)
        self.rows = self.fresh.repeat(slots, 1)
        self.tails: list[list[int]] = [[] for _ in range(slots)]  # last tokens of each text
        self.eos_scores = torch.tensor(_eos_scores(settings), device=device)

    def enter(self, slot: int, text: list[int]) -> None:
        """A text takes a slot: its prompt, and what it has of its response already.

        Raises:
            ValueError: the text has no user tag.
        """
        # A new adapter's scores behind a text are those of a prompt: no ramp yet. A copy, because
        # making one reads the whole vocabulary.
        logits = torch.zeros(1, self.rows.shape[1])
        self.rows[slot] = copy(self.adapter)(torch.tensor([text]), logits)[0].to(self.rows.device)
        self.tails[slot] = text[-self.user_tag.most_tokens :]

    def add_scores(
        self,
        logits: torch.Tensor,
        slots: torch.Tensor,
        tokens: torch.Tensor,
        is_new: torch.Tensor,
        response_tokens: torch.Tensor,
    ) -> torch.Tensor:
        """Add the scores of the next token to the logits, in place.

        Args:
            logits: (rows, vocabulary), fp32.
            slots: (rows,), each once.
            tokens: (rows,), the last token of each text.
            is_new: (rows,), whether that token came after the text entered its slot.
            response_tokens: (rows,), length of each response.
        """
        if self.remembers:
            self._remember(slots, tokens, is_new)
        logits.add_(self.rows[slots])
        ramp = response_tokens.clamp(0, len(self.eos_scores) - 1)
        logits.select(1, self.adapter.eos).add_(self.eos_scores[ramp])
        return logits

    def _remember(self, slots: torch.Tensor, tokens: torch.Tensor, is_new: torch.Tensor) -> None:
        # Written, not subtracted: a token counts once, however often it stands there.
        scores = torch.where(is_new, self.seen[tokens], self.rows[slots, tokens])
        self.rows[slots, tokens] = scores
        # The one transfer to the host in a step: has a response come to write a user tag?
        for slot, token in torch.stack([slots, tokens.where(is_new, -1)], 1).tolist():
            if token < 0:
                continue
            tail = self.tails[slot] = [*self.tails[slot], token][-self.user_tag.most_tokens :]
            if self.user_tag.ends(tail):
                self.rows[slot] = self.fresh  # behind the tag all is new


def _eos_scores(settings: RuleSettings) -> list[float]:
    """Score of EOS by the number of response tokens; the last holds from there on."""
    if "eos" not in settings.rules:
        return [0.0]
    end = settings.eos_strength if settings.eos_after_ramp == "hold" else 0.0
    ramp = settings.eos_ramp_tokens
    return [*(settings.eos_strength * n / ramp for n in range(ramp)), end]
