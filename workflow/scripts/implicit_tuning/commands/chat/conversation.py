"""A conversation with a model: what was said, the next prompt, and the answer as it comes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.generation.streamers import BaseStreamer

from implicit_tuning.commands.chat.display import Display
from implicit_tuning.generation.engines.engine import GenerationSettings
from implicit_tuning.generation.engines.transformers_engine import open_engine
from implicit_tuning.models.chat import ChatFormat, Message, render, saved_chat_template
from implicit_tuning.models.folder import load_tokenizer
from implicit_tuning.models.rule_adapter import RuleAdapter, RuleSettings


class ContextFull(ValueError):
    """The conversation leaves no room for an answer in the model's context."""


@dataclass
class Partner:
    """A loaded model, and how it is asked.

    Attributes:
        template: chat template, in Jinja.
        rules: settings of the rule adapter.
        with_rules: whether the run itself answers with them.
        max_new_tokens: of an answer, its end included.
        context: tokens of conversation and answer that the model can hold; None: not known.
        ends: ids of the tokens that end an answer.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    template: str
    chat_format: ChatFormat
    rules: RuleSettings
    with_rules: bool
    max_new_tokens: int
    context: int | None
    ends: list[int]

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation that it is the assistant's turn in."""
        text = render(messages, self.tokenizer, self.template, add_generation_prompt=True)
        # The template has written the BOS, where there is one. Of a text that is too long we tell
        # ourselves, and better.
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def adapter(self) -> RuleAdapter:
        """The rules, for one answer."""
        return RuleAdapter(self.tokenizer, **asdict(self.rules), chat_format=self.chat_format)

    def text(self, ids: Sequence[int]) -> str:
        """What the tokens of an answer read as, without the one that ends it."""
        said = ids[:-1] if self.is_over(ids) else ids
        return self.tokenizer.decode(
            said, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def is_over(self, ids: Sequence[int]) -> bool:
        """Whether the last of an answer's tokens ends it."""
        return len(ids) > 0 and ids[-1] in self.ends

    def describe(self) -> str:
        """How it answers, in a few words."""
        context = f"{self.context} tokens of context" if self.context else "no known end of context"
        return (
            f"greedy, up to {self.max_new_tokens} new tokens, {context}, {self.model.dtype} on "
            f"{self.model.device}".replace("torch.", "")
        )


def load_partner(folder: Path, settings: Mapping, rules: RuleSettings) -> Partner:
    """Load a model folder for transformers, with which a conversation is held under any engine.

    Args:
        settings: of a generation: "chat", "generation" and "rules" (None: answers without rules).
        rules: those that can be turned on.

    Raises:
        ValueError: the folder lacks a file, or the device is not there.
    """
    tokenizer = load_tokenizer(folder)
    chat_format = ChatFormat(**settings["chat"])
    decoding = GenerationSettings(**settings["generation"])
    engine = open_engine(folder, tokenizer, chat_format, decoding, None, {})
    return Partner(
        model=engine.model,
        tokenizer=tokenizer,
        template=saved_chat_template(tokenizer, chat_format),
        chat_format=chat_format,
        rules=rules,
        with_rules=settings["rules"] is not None,
        max_new_tokens=decoding.max_new_tokens,
        context=engine.context,
        ends=list(engine.ends),
    )


@dataclass
class Column:
    """A conversation in which the rules hold, or do not."""

    rules: bool
    messages: list[Message] = field(default_factory=list)

    @property
    def title(self) -> str:
        """For people."""
        return "with rules" if self.rules else "without rules"


class Conversation:
    """Turns with a partner, in one column or, without and with the rules, in two."""

    def __init__(self, partner: Partner) -> None:
        self.partner = partner
        self.columns = [Column(partner.with_rules)]

    def toggle(self) -> None:
        """Between one column and two; the second one begins with what was said in the first.

        Raises:
            ValueError: the rules do not fit the tokenizer.
        """
        if len(self.columns) == 2:
            self.columns = [
                column for column in self.columns if column.rules == self.partner.with_rules
            ]
            return
        self.partner.adapter()
        said = self.columns[0].messages
        self.columns = [Column(rules, list(said)) for rules in (False, True)]

    def clear(self) -> None:
        """Forget what was said."""
        self.columns = [Column(column.rules) for column in self.columns]

    def ask(self, text: str, display: Display) -> str | None:
        """Answer in every column, shown as it comes.

        Returns:
            What cut an answer, for people; None where all came to their end.

        Raises:
            ContextFull: there is no room for an answer; nothing was added to the conversation.
        """
        asked = {"role": "user", "content": text}
        prompts = [self.partner.prompt([*c.messages, asked]) for c in self.columns]
        room = self._room(max(map(len, prompts)))
        replies = self._generate(prompts, room, display)
        for column, reply in zip(self.columns, replies, strict=True):
            answer = {"role": "assistant", "content": self.partner.text(reply)}
            column.messages += [asked, answer]
        if all(map(self.partner.is_over, replies)):
            return None
        if room < self.partner.max_new_tokens:
            context = self.partner.context
            return f"cut: the model's context of {context} tokens is full; /new starts over"
        return f"cut after {room} tokens (generation.max_new_tokens)"

    def _room(self, length: int) -> int:
        """Tokens that an answer to prompts of up to this length may have."""
        context, most = self.partner.context, self.partner.max_new_tokens
        if context is None or length + most <= context:
            return most
        if length >= context:
            raise ContextFull(
                f"the conversation has {length} tokens with this question, and the model's context "
                f"is {context}: ask something shorter, or start over with /new"
            )
        return context - length

    def _generate(self, prompts: list[list[int]], room: int, display: Display) -> list[list[int]]:
        partner, end = self.partner, self.partner.ends[0]
        rows = [torch.tensor(prompt, device=partner.model.device) for prompt in prompts]
        masks = [torch.ones_like(row) for row in rows]
        stream = Stream(partner, len(rows), display)
        with torch.inference_mode():
            partner.model.generate(
                input_ids=pad_sequence(rows, True, end, "left"),
                attention_mask=pad_sequence(masks, True, 0, "left"),
                generation_config=GenerationConfig(
                    do_sample=False,
                    num_beams=1,
                    max_new_tokens=room,
                    eos_token_id=partner.ends,
                    pad_token_id=end,
                ),
                logits_processor=self._processors(),
                streamer=stream,
            )
        return stream.replies

    def _processors(self) -> LogitsProcessorList:
        """The rules, for the last row alone: that of the column with rules, if there is one."""
        if not self.columns[-1].rules:
            return LogitsProcessorList()
        return LogitsProcessorList([OnLastRow(self.partner.adapter())])


class OnLastRow(LogitsProcessor):
    """Applies a processor to the last row of a batch, and leaves the others as they are."""

    def __init__(self, processor: LogitsProcessor) -> None:
        self.processor = processor

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Of `input_ids` (rows, tokens) and `scores` (rows, vocabulary), the adapted scores."""
        return torch.cat((scores[:-1], self.processor(input_ids[-1:], scores[-1:])))


class Stream(BaseStreamer):
    """Shows answers as `generate` makes them, several rows at once.

    Attributes:
        replies: token ids of each row so far, with the one that ended it.
    """

    def __init__(self, partner: Partner, rows: int, display: Display) -> None:
        self.partner = partner
        self.display = display
        self.replies: list[list[int]] = [[] for _ in range(rows)]
        self._is_prompt = True

    def put(self, value: torch.Tensor) -> None:
        """The prompts first, (rows, tokens), then one token a row and step, (rows,)."""
        if self._is_prompt:
            self._is_prompt = False
            return
        for reply, token in zip(self.replies, value.tolist(), strict=True):
            if not self.partner.is_over(reply):
                reply.append(token)
        self._show(list(map(self.partner.is_over, self.replies)))

    def end(self) -> None:
        """All rows are at their end, or cut."""
        self._show([True] * len(self.replies))

    def _show(self, ended: list[bool]) -> None:
        texts = [self.partner.text(reply) for reply in self.replies]
        # A character whose bytes are not all there yet reads as this sign.
        shown = [t if e else t.rstrip("\ufffd") for t, e in zip(texts, ended, strict=True)]
        self.display.show(shown, ended)
