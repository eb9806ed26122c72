"""The rule-based adapter: three hand-written rules that make a base follow instructions.

Paper, section 6. The adapter is a product of experts,

    p(token | text) proportional to base(token | text) * rules(token | text),

that is, the sum of the base's log-probabilities and the rules' scores, normalized. As a
`LogitsProcessor` it works in any `model.generate(logits_processor=[RuleAdapter(tokenizer)])` with
one sequence a row: greedy or sampled, in batches, with left padding and the KV cache.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import LogitsProcessor, PreTrainedTokenizerBase
from transformers.utils import logging

from implicit_tuning.models.chat import PAPER_FORMAT, ChatFormat

logger = logging.get_logger(__name__)

RULES = ("eos", "repetition", "bias")

# The authors' list; they give Llama-2's ids for these pieces. The sign for a space is "\u2581".
PAPER_BIAS: Mapping[str, float] = {
    "<": -4, "\u2581<": -4, "|": -4,
    "\u2581I": -5, "I": -5, "\u2581We": -3, "What": -5, "\u2581should": -6,
    "\u2581*": 1, "\u2581-": 1, "\u2581\u2581\u2581": 1, "\u2581#": 1, "\u2581##": 1, "\n": 1, "!": 1,
}  # fmt: skip


@dataclass(frozen=True)
class RuleSettings:
    """The values of `RuleAdapter`, see there; the defaults are the paper's."""

    rules: tuple[str, ...] = RULES
    eos_ramp_tokens: int = 250
    eos_strength: float = 15.0
    eos_after_ramp: Literal["hold", "drop"] = "hold"
    repetition_penalty: float = 1.5
    bias: Mapping[str, float] = field(default_factory=lambda: dict(PAPER_BIAS))


class RuleAdapter(LogitsProcessor):
    """Adds the scores of the rules to a step's logits.

    It keeps what it has seen of each row, so that a step costs the same however long the text is: a
    running matrix of penalties, in which each row's newest token is marked, is added to the logits.
    It begins anew when it meets other prompts: one adapter serves any number of calls of
    `generate`, one after the other. A call on the very text that the last one returned goes on
    with its ramp. What moves rows about or takes tokens back, as beam search and assisted
    generation do, is refused as soon as it does.

    >>> from transformers import AutoModelForCausalLM, AutoTokenizer
    >>> from implicit_tuning import format_chat
    >>> tokenizer = AutoTokenizer.from_pretrained("resources/organism/llama")
    >>> model = AutoModelForCausalLM.from_pretrained("resources/organism/llama")
    >>> text = format_chat("Which one is bigger, a cat or a hen?", tokenizer)
    >>> prompt = tokenizer(text, return_tensors="pt")
    >>> bias = dict.fromkeys(["What", "Tell", "Which", "Name", "Give", "Write", "How", "If"], -6)
    >>> rules = RuleAdapter(tokenizer, eos_ramp_tokens=60, repetition_penalty=0.5, bias=bias)
    >>> ids = model.generate(**prompt, max_new_tokens=40, logits_processor=[rules])
    >>> tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    'A cat is bigger than a hen.'

    `resolved` has the token id by piece, in the order of `bias`, and is empty without the bias
    rule. `unresolved` are the pieces that are not a single token here; they have no effect.

    Args:
        rules: those in force, any of "eos", "repetition" and "bias".
        eos_ramp_tokens: length of the ramp, in response tokens.
        eos_strength: score of EOS at the end of the ramp; after n tokens of a response it is
            `eos_strength * n / eos_ramp_tokens`.
        eos_after_ramp: "hold" keeps the full score from there on. "drop" gives none: PAPER, the
            authors' code builds a hard end and never adds it. DEVIATION: we hold by default.
        repetition_penalty: taken once from every distinct token behind the last user tag: the
            instruction, the assistant tag and the response so far.
        bias: score by piece. Pieces are written with "\u2581" for a space and real line breaks,
            whatever the tokenizer's own notation; each must be one token.

    Raises:
        TypeError: `rules` is one name; `chat_format` is none.
        ValueError: unknown rule or value, `own_template` (under which no tag stands), no EOS token,
            or no piece of `bias` is a token. When called: a row without user tag, or rows that do
            not go on by one token a step.
    """

    # Batches whose rows come and go at any step, each with a history of its own, are not kept here.
    supports_continuous_batching = False

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        rules: Sequence[str] = RULES,
        eos_ramp_tokens: int = 250,
        eos_strength: float = 15.0,
        eos_after_ramp: Literal["hold", "drop"] = "hold",
        repetition_penalty: float = 1.5,
        bias: Mapping[str, float] = PAPER_BIAS,
        chat_format: ChatFormat = PAPER_FORMAT,
    ) -> None:
        _check_values(tokenizer, rules, eos_ramp_tokens, eos_after_ramp)
        _check_strengths(eos_strength=eos_strength, repetition_penalty=repetition_penalty)
        _check_bias(bias)
        _check_tags(chat_format)
        self.eos: int = tokenizer.eos_token_id
        self.eos_ramp_tokens = eos_ramp_tokens if "eos" in rules else 0
        self.eos_strength = eos_strength
        self.eos_after_ramp = eos_after_ramp
        self.repetition_penalty = repetition_penalty if "repetition" in rules else 0.0
        self.resolved: dict[str, int] = {}
        self.unresolved: tuple[str, ...] = ()
        if "bias" in rules:
            self.resolved, self.unresolved = resolve_pieces(bias, tokenizer)
        self.bias = {token: float(bias[piece]) for piece, token in self.resolved.items()}
        self.user_tag = UserTag(chat_format.user, tokenizer)
        self.shape = torch.Size((0, 0))  # rows and tokens of the text as of the last step
        self.tail = self.prompt = torch.empty(self.shape)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """
        Args:
            input_ids: (rows, tokens), prompt and response so far.
            scores: (rows, vocabulary), logits of the next token.

        Returns:
            (rows, vocabulary), fp32: the adapted logits.
        """
        if self._is_next_step(input_ids):
            self._continue(input_ids)
        else:
            self._refuse_other_steps(input_ids)
            self._begin(input_ids, scores)
        self.shape = input_ids.shape
        self.tail = input_ids[:, -self.user_tag.most_tokens :]
        # The paper adds log-softmaxed scores, of base and of rules. Both normalizers are one
        # number a row and step, which changes neither argmax nor softmax: they are left out, and
        # the distribution is the same. The sum is a new tensor, since `generate` can be asked to
        # return the logits and the scores of every step.
        adapted = scores + self.penalties
        adapted.select(1, self.eos).add_(self._eos_score())
        return adapted

    def _is_next_step(self, input_ids: torch.Tensor) -> bool:
        """Whether this is the text of the last step with one more token. Told by its shape and its
        last tokens, for to compare all of it would take longer with every step."""
        rows, length = self.shape
        before = input_ids[:, -self.user_tag.most_tokens - 1 : -1]
        return input_ids.shape == (rows, length + 1) and torch.equal(before, self.tail)

    def _refuse_other_steps(self, input_ids: torch.Tensor) -> None:
        """What is no longer than a next step and has the last prompts in front is another step of
        the same call."""
        rows, length = self.shape
        prompt = self.prompt.shape[1]
        is_step = len(input_ids) == rows and prompt < input_ids.shape[1] <= length + 1
        if is_step and torch.equal(input_ids[:, :prompt], self.prompt):
            raise ValueError(
                "the rows do not go on from the last step by one token each: the adapter does not "
                "work with beam search or assisted generation, which move rows or take tokens "
                "back. For a new call on prompts with part of an answer make a new adapter"
            )

    def _begin(self, input_ids: torch.Tensor, scores: torch.Tensor) -> None:
        self.prompt = input_ids
        self.response_tokens = 0
        fresh = torch.zeros(scores.shape[1])
        fresh[list(self.bias)] = torch.tensor(list(self.bias.values()))
        # A running matrix: the bias, less the penalty for each token that a row has seen.
        self.fresh = fresh.to(scores.device)
        self.seen = self.fresh - self.repetition_penalty  # (vocabulary,)
        self.penalties = self.fresh.repeat(len(input_ids), 1)
        for row, ids in enumerate(input_ids.tolist()):
            end = self.user_tag.last_end(ids)
            if end is None:
                raise ValueError(
                    f"row {row} of the prompts has no user tag {self.user_tag.text!r}: render "
                    "prompts in the chat format, or pass the chat_format that they are in"
                )
            behind_tag = input_ids[row, end:]
            self.penalties[row, behind_tag] = self.seen[behind_tag]

    def _continue(self, input_ids: torch.Tensor) -> None:
        self.response_tokens += 1
        newest = input_ids[:, -1:]
        # Written, not subtracted: a token counts once, however often it stands there.
        self.penalties.scatter_(1, newest, self.seen.take(newest))
        for row in self.user_tag.rows_that_end(input_ids):
            self.penalties[row] = self.fresh  # behind the tag all is new

    def _eos_score(self) -> float:
        if self.response_tokens < self.eos_ramp_tokens:
            return self.eos_strength * self.response_tokens / self.eos_ramp_tokens
        held = self.eos_ramp_tokens > 0 and self.eos_after_ramp == "hold"
        return self.eos_strength if held else 0.0


class UserTag:
    """Finds a tag in the text that tokens decode to.

    Its own tokens differ with what stands around it: Llama-2 begins it with another token at the
    start of a text than after a line break, many tokenizers merge its last characters with the line
    break behind it, and a model may spell it in any way. It consists of at most `most_tokens`,
    because each of its tokens holds a byte at least.
    """

    def __init__(self, text: str, tokenizer: PreTrainedTokenizerBase) -> None:
        self.text = text
        self.most_tokens = len(text.encode())
        self._tokenizer = tokenizer
        end = text[-1]
        byte = f"<0x{ord(end):02X}>"  # sentencepiece's token for a character that it lacks
        # A character that is not ASCII can be spread over tokens that do not show it.
        self._last_tokens = {
            token
            for piece, token in tokenizer.get_vocab().items()
            if not end.isascii() or end in piece or piece == byte
        }

    def last_end(self, ids: Sequence[int]) -> int | None:
        """Position of the first token behind the last tag; None without a tag."""
        for end in range(len(ids), 0, -1):
            if self.ends(ids[max(0, end - self.most_tokens) : end]):
                return end
        return None

    def rows_that_end(self, input_ids: torch.Tensor) -> list[int]:
        """The rows, of (rows, tokens), whose last token brings a tag to its end."""
        newest = input_ids[:, -1].tolist()
        if self._last_tokens.isdisjoint(newest):
            return []
        tails = input_ids[:, -self.most_tokens :].tolist()
        return [row for row, tail in enumerate(tails) if self.ends(tail)]

    def ends(self, tail: Sequence[int]) -> bool:
        """Whether the last of these tokens, `most_tokens` of them if the text has so many, brings
        the tag to its end."""
        if tail[-1] not in self._last_tokens:
            return False
        with_last, without = (self._read(part).count(self.text) for part in (tail, tail[:-1]))
        return with_last > without

    def _read(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def resolve_pieces(
    pieces: Iterable[str], tokenizer: PreTrainedTokenizerBase
) -> tuple[dict[str, int], tuple[str, ...]]:
    """The token id of each piece, and the pieces that are no single token of this tokenizer.

    Raises:
        ValueError: no piece is a token, or two are the same one.
    """
    vocabulary = tokenizer.get_vocab()
    found = {piece: _token_id(piece, vocabulary, tokenizer) for piece in pieces}
    resolved = {piece: token for piece, token in found.items() if token is not None}
    unresolved = tuple(piece for piece in found if piece not in resolved)
    where = f"the tokenizer in {tokenizer.name_or_path or 'memory'}"
    if not resolved:
        raise ValueError(
            f"no piece of the token bias {list(found)} is one token of {where}: write pieces of "
            "its vocabulary, with '\u2581' for a space, or leave out the rule 'bias'"
        )
    if len(set(resolved.values())) < len(resolved):
        raise ValueError(f"two pieces of the token bias are the same token of {where}: {resolved}")
    if unresolved:
        logger.warning_once(f"token bias: no single token of {where} for {list(unresolved)}")
    return resolved, unresolved


def _token_id(
    piece: str, vocabulary: Mapping[str, int], tokenizer: PreTrainedTokenizerBase
) -> int | None:
    text = piece.replace("\u2581", " ")
    splitter = ByteLevel(add_prefix_space=False, use_regex=False)
    byte_level = "".join(part for part, _ in splitter.pre_tokenize_str(text))
    # As sentencepiece writes it, as a vocabulary of plain text does, as byte-level BPE does. One
    # notation's letters are another's bytes, so that what is found must also read as the piece
    # (sentencepiece's decoder drops a leading space).
    for entry in (piece, text, byte_level):
        token = vocabulary.get(entry)
        if token is not None:
            read = tokenizer.decode([token], clean_up_tokenization_spaces=False)
            if read in (piece, text, text.removeprefix(" ")):
                return token
    # Sentencepiece's token for a character it knows only as a byte, such as the line break.
    token = vocabulary.get(f"<0x{ord(text):02X}>") if len(text) == 1 and text.isascii() else None
    return token if token is not None and tokenizer.decode([token]) == text else None


def _check_values(
    tokenizer: PreTrainedTokenizerBase,
    rules: Sequence[str],
    eos_ramp_tokens: int,
    eos_after_ramp: str,
) -> None:
    if isinstance(rules, str):
        raise TypeError(f"rules is the text {rules!r}: give a tuple of names, such as ({rules!r},)")
    if unknown := set(rules) - set(RULES):
        raise ValueError(f"unknown rules {sorted(unknown)}: choose from {', '.join(RULES)}")
    if not (eos_ramp_tokens >= 1 and eos_ramp_tokens % 1 == 0):
        raise ValueError(
            f"eos_ramp_tokens is {eos_ramp_tokens}: it must be a whole number, at least 1"
        )
    if eos_after_ramp not in ("hold", "drop"):
        raise ValueError(f"eos_after_ramp is {eos_after_ramp!r}: choose 'hold' or 'drop'")
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"the tokenizer in {tokenizer.name_or_path or 'memory'} has no EOS token: set "
            "'eos_token' in its tokenizer_config.json"
        )


def _check_strengths(**strengths: float) -> None:
    for name, value in strengths.items():
        if value < 0:
            raise ValueError(
                f"{name} is {value}: it must not be negative (its sign is part of the rule)"
            )
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}: give a finite number")


def _check_bias(bias: Mapping[str, float]) -> None:
    for piece, value in bias.items():
        if not math.isfinite(value):
            raise ValueError(f"bias of {piece!r} is {value}: give a finite number")


def _check_tags(chat_format: ChatFormat) -> None:
    if not isinstance(chat_format, ChatFormat):
        raise TypeError(f"chat_format is {chat_format!r}: give a ChatFormat")
    if chat_format.own_template:
        raise ValueError(
            "chat_format has own_template, under which prompts have no user tag for the rules to "
            "find: give one with tags, and prompts that have them"
        )
