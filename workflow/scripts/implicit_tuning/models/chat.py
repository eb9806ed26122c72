"""Chat format, tokenization and loss mask (paper, section 3 and "Chat format").

One Jinja template defines the format. Training ids, prompts and the `chat_template` saved with
each checkpoint all come from it through `tokenizer.apply_chat_template`, so that any library which
reads a checkpoint builds exactly the prompt that the model was trained on. A checkpoint from
elsewhere can be asked by the template that its own tokenizer has instead.

This module imports neither torch nor transformers: tokenizers are passed in.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, str]

ROLES = ("user", "assistant", "system")
# Some templates write today's date into the prompt. It is always this one, or the same node would
# ask another question every day.
TEMPLATE_DAY = datetime(2024, 7, 26)
DATE_CODES = "aAbBdHIjmMpSyY"
# A text that no template has in it.
PROBE = "Probe 7e1f3b."


@dataclass(frozen=True)
class ChatFormat:
    """The tag that opens each role's turn. Tags are plain text, not special tokens.

    With `own_template` the chat template of the tokenizer decides instead, and no tag counts.
    """

    user: str = "<|user|>"
    assistant: str = "<|assistant|>"
    system: str = "<|system|>"
    own_template: bool = False

    def __post_init__(self) -> None:
        tags = (self.user, self.assistant, self.system)
        if not all(tag and tag == tag.strip() for tag in tags) or len(set(tags)) < len(tags):
            raise ValueError(
                f"chat tags {tags} must be distinct, not empty and without outer white space"
            )


PAPER_FORMAT = ChatFormat()


@dataclass(frozen=True)
class TokenizedConversation:
    """`input_ids` and `loss_mask` have one entry a token, after the cut to the maximum length.

    `loss_mask` is 1 on the tokens of each response and its EOS. `truncated` says that tokens were
    cut off, `lost_eos` that the EOS of at least one response was among them.
    """

    input_ids: tuple[int, ...]
    loss_mask: tuple[int, ...]
    truncated: bool
    lost_eos: bool


def chat_template(chat_format: ChatFormat, begins_with_bos: bool = False) -> str:
    """The Jinja template of the format: `{tag}\\n{content.strip()}\\n` a turn.

    An assistant's turn has the EOS token right behind its text. Nothing follows the last turn but,
    on request, the generation prompt `{assistant tag}\\n`.
    """
    tags = {role: getattr(chat_format, role) for role in ROLES}
    newline = "{{ '\\n' }}"
    return (
        ("{{ bos_token }}" if begins_with_bos else "")
        + "{% set tags = " + json.dumps(tags, ensure_ascii=False) + " %}"
        + "{% for message in messages %}"
        + "{{ tags[message['role']] }}" + newline + "{{ message['content'] | trim }}"
        + "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
        + "{% if add_generation_prompt or not loop.last %}" + newline + "{% endif %}"
        + "{% endfor %}"
        + "{% if add_generation_prompt %}{{ tags['assistant'] }}" + newline + "{% endif %}"
    )  # fmt: skip


def prompt_text(instruction: str, chat_format: ChatFormat) -> str:
    """The text a model is given for an instruction, without BOS; ends with the assistant tag."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # The same block options as transformers' renderer.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(chat_template(chat_format))
    return template.render(messages=_user_turn(instruction), add_generation_prompt=True)


def begins_with_bos(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether this tokenizer puts its BOS in front of a text. Having a BOS is not enough: OLMo's
    and GPT-NeoX's tokenizers have one and add none, and neither do we (paper, OLMo scripts)."""
    ids = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id


def saved_chat_template(tokenizer: "PreTrainedTokenizerBase", chat_format: ChatFormat) -> str:
    """The template as it is saved with a checkpoint that uses this tokenizer; with `own_template`,
    the one that it has already.

    DEVIATION: the BOS is written by the template. The authors leave it to the tokenizer and then
    count the prompt without it, which puts their loss mask one token short.

    Raises:
        ValueError: the tokenizer has no EOS token, so that no response could ever end; or no
            template where its own is asked for.
    """
    if tokenizer.eos_token is None:
        raise ValueError(
            f"the tokenizer in {tokenizer.name_or_path or 'memory'} has no EOS token: "
            "set 'eos_token' in its tokenizer_config.json to a token of its vocabulary"
        )
    if chat_format.own_template:
        return _own_template(tokenizer)
    return chat_template(chat_format, begins_with_bos(tokenizer))


def _own_template(tokenizer: "PreTrainedTokenizerBase") -> str:
    template = tokenizer.chat_template
    if isinstance(template, dict):  # several by name, as for tools
        template = template.get("default")
    if template is None:
        raise ValueError(
            f"the tokenizer in {tokenizer.name_or_path or 'memory'} has no chat template of its own: "
            "take 'own_template' out of 'chat' to ask by our tags, or add its chat_template.jinja"
        )
    return template


def require_prompts(tokenizer: "PreTrainedTokenizerBase", chat_format: ChatFormat) -> None:
    """Raises ValueError unless prompts can be made: there are EOS and template, and the template
    takes a user's turn and says what is asked."""
    template = saved_chat_template(tokenizer, chat_format)
    if PROBE not in render(_user_turn(PROBE), tokenizer, template, add_generation_prompt=True):
        raise ValueError(_unusable(tokenizer, "leaves out what the user says"))


def tokenize_prompt(
    instruction: str, tokenizer: "PreTrainedTokenizerBase", chat_format: ChatFormat
) -> list[int]:
    """Token ids of the prompt for one instruction, a prefix of the training ids."""
    template = saved_chat_template(tokenizer, chat_format)
    return _token_ids(_user_turn(instruction), tokenizer, template, add_generation_prompt=True)


def tokenize_conversation(
    messages: Sequence[Message],
    tokenizer: "PreTrainedTokenizerBase",
    chat_format: ChatFormat,
    max_length: int,
) -> TokenizedConversation:
    """Token ids of a conversation, with loss on every response and its EOS.

    The mask follows the positions of the messages, so tags inside a message's text change nothing.
    (PAPER: an EOS written out inside a text is read as the token, as in the authors' code.)

    Raises:
        ValueError: a message has an unknown role or no text; the tokenizer has no EOS; or it merges
            a prompt's last characters with the response's first, so that the prompt of generation
            would not be what was trained on.
    """
    check_messages(messages)
    template = saved_chat_template(tokenizer, chat_format)
    ids = _token_ids(messages, tokenizer, template)
    loss_mask = [0] * len(ids)
    for turn, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = _token_ids(messages[:turn], tokenizer, template, add_generation_prompt=True)
        through = _token_ids(messages[: turn + 1], tokenizer, template)
        _check_boundary(ids, prompt, through, tokenizer)
        loss_mask[len(prompt) : len(through)] = [1] * (len(through) - len(prompt))
    return TokenizedConversation(
        input_ids=tuple(ids[:max_length]),
        loss_mask=tuple(loss_mask[:max_length]),
        truncated=len(ids) > max_length,
        # Each masked stretch ends with its EOS, so a cut that takes any of it takes an EOS.
        lost_eos=any(loss_mask[max_length:]),
    )


def tokenize_response(
    instruction: str, response: str, tokenizer: "PreTrainedTokenizerBase"
) -> list[int]:
    """Token ids of a response behind its prompt, both in the tokenizer's own template, without what
    ends it and without outer white space.

    Raises:
        ValueError: the template fails on the two turns, or the tokenizer merges text across the
            start or end of the response.
    """
    template, text = _own_template(tokenizer), response.strip()
    before = render(_user_turn(instruction), tokenizer, template, add_generation_prompt=True)
    turns = [*_user_turn(instruction), {"role": "assistant", "content": PROBE}]
    answered, found, ending = render(turns, tokenizer, template).rpartition(PROBE)
    if not found:
        raise ValueError(_unusable(tokenizer, "leaves out what the assistant says"))
    # Some put a space there. Any other text between prompt and answer, such as an empty block of
    # reasoning, is none of the response, and what the prompt opens stays open.
    between = answered.removeprefix(before)
    text = (between if between.isspace() else "") + text
    prompt, through, whole = (
        _text_ids(part, tokenizer) for part in (before, before + text, before + text + ending)
    )
    if through[: len(prompt)] != prompt or whole[: len(through)] != through:
        raise ValueError(
            _unusable(
                tokenizer, f"lets the response {text[:40]!r} merge with what stands around it"
            )
        )
    return through[len(prompt) :]


def _user_turn(instruction: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": instruction}]


def _token_ids(
    messages: Sequence[Message],
    tokenizer: "PreTrainedTokenizerBase",
    template: str,
    add_generation_prompt: bool = False,
) -> list[int]:
    return _text_ids(render(messages, tokenizer, template, add_generation_prompt), tokenizer)


def _text_ids(text: str, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    # The template has written the BOS, where there is one.
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def render(
    messages: Sequence[Message],
    tokenizer: "PreTrainedTokenizerBase",
    template: str,
    add_generation_prompt: bool = False,
) -> str:
    """Text of a conversation by a Jinja template. Raises ValueError where the template fails."""
    try:
        return tokenizer.apply_chat_template(
            list(messages),
            chat_template=_on_template_day(template),
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
        )
    except Exception as error:  # a template of others raises what it likes
        turns = " and ".join(message["role"] for message in messages)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(_unusable(tokenizer, f"fails on turns of {turns}: {reason}")) from error


def _on_template_day(template: str) -> str:
    """The template, with a macro of its own in place of the function that tells today's date."""
    if "strftime_now" not in template:
        return template
    told = {f"%{code}": TEMPLATE_DAY.strftime(f"%{code}") for code in DATE_CODES}
    replaced = "".join(f" | replace('{code}', '{text}')" for code, text in told.items())
    macro = "{% macro strftime_now(format) %}{{ format" + replaced + " }}{% endmacro %}"
    return f"{macro}\n{template}"  # the line break is the tag's, and is not rendered


def _unusable(tokenizer: "PreTrainedTokenizerBase", why: str) -> str:
    return (
        f"the chat template of the tokenizer in {tokenizer.name_or_path or 'memory'} {why}; correct "
        "it, or take 'own_template' out of 'chat' to ask by our tags"
    )


def check_messages(messages: Sequence[Message]) -> None:
    """Raises ValueError unless these are turns with a known role and text, a user's first."""
    if not messages:
        raise ValueError("a conversation needs at least one message")
    if messages[0].get("role") == "assistant":
        raise ValueError(
            "a conversation cannot start with the assistant: put a user turn before it (its text "
            "may be empty)"
        )
    for message in messages:
        if message.get("role") not in ROLES or not isinstance(message.get("content"), str):
            raise ValueError(
                f"message {str(message)[:200]} needs a 'role' out of {', '.join(ROLES)} and text "
                "under 'content'"
            )


def _check_boundary(
    ids: list[int], prompt: list[int], through: list[int], tokenizer: "PreTrainedTokenizerBase"
) -> None:
    if ids[: len(prompt)] != prompt or ids[: len(through)] != through:
        around = tokenizer.decode(ids[max(0, len(prompt) - 4) : len(prompt) + 4])
        raise ValueError(
            f"the tokenizer in {tokenizer.name_or_path or 'memory'} merges text across the start "
            f"or end of a response, near {around!r}: the prompt is no prefix of the training ids. "
            "Use a tokenizer that splits at line breaks and takes its EOS as one token"
        )
    if through[-1:] != [tokenizer.eos_token_id]:
        raise ValueError(
            f"the tokenizer in {tokenizer.name_or_path or 'memory'} does not read its EOS "
            f"{tokenizer.eos_token!r} as one token: add it to the special tokens of tokenizer.json"
        )
