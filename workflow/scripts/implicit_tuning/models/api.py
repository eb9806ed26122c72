"""Conversations in the chat format, as text and as token ids with their loss mask.

For use with a tokenizer that is already loaded; `chat` is what the workflow's stages call.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from implicit_tuning.models.chat import (
    PAPER_FORMAT,
    ChatFormat,
    Message,
    TokenizedConversation,
    begins_with_bos,
    check_messages,
    render,
    saved_chat_template,
    tokenize_conversation,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def format_chat(
    conversation: str | Sequence[Message],
    tokenizer: "PreTrainedTokenizerBase",
    chat_format: ChatFormat = PAPER_FORMAT,
) -> str:
    """The text of a conversation in the chat format, to be given to `tokenizer(...)`.

    It has no BOS where the tokenizer adds one by itself. Where an answer is due, after an
    instruction or a user's turn, it ends with the assistant's tag.

    Llama-2's tokenizer, and others that put a space before a text but not behind a BOS in it, spell
    the first tag otherwise than finetuning does. Exactly its tokens are given by
    `tokenizer(tokenizer.bos_token + text, add_special_tokens=False)`.

    >>> from transformers import AutoTokenizer
    >>> tokenizer = AutoTokenizer.from_pretrained("resources/organism/llama")
    >>> print(format_chat("Name a bird.", tokenizer), end="")
    <|user|>
    Name a bird.
    <|assistant|>

    A conversation is an instruction, or messages with `role` ("user", "assistant", "system") and
    `content`.

    Raises:
        TypeError: `chat_format` is none.
        ValueError: a message has an unknown role or no text; the tokenizer has no EOS, puts one
            behind every text, or adds a BOS that its own chat template lacks.
    """
    if isinstance(conversation, str):
        conversation = [{"role": "user", "content": conversation}]
    turns = _checked_turns(conversation)
    check_chat_format(chat_format)
    template = saved_chat_template(tokenizer, chat_format)
    awaits_answer = turns[-1]["role"] != "assistant"
    text = render(turns, tokenizer, template, add_generation_prompt=awaits_answer)
    return _without_what_is_added(text, tokenizer)


def mask(
    messages: Sequence[Message],
    tokenizer: "PreTrainedTokenizerBase",
    chat_format: ChatFormat = PAPER_FORMAT,
    max_length: int = sys.maxsize,
) -> TokenizedConversation:
    """Token ids of a conversation and its loss mask, as finetuning uses them.

    The mask is 1 on every response and its EOS. It is all 0 only where `max_length` cuts before the
    first response.

    >>> from transformers import AutoTokenizer
    >>> tokenizer = AutoTokenizer.from_pretrained("resources/organism/llama")
    >>> conversation = mask(
    ...     [{"role": "user", "content": "Say hi."}, {"role": "assistant", "content": "Hi."}],
    ...     tokenizer,
    ... )
    >>> marked = zip(conversation.input_ids, conversation.loss_mask, strict=True)
    >>> tokenizer.decode([token for token, counts in marked if counts])
    'Hi.</s>'

    Args:
        messages: with `role` ("user", "assistant", "system") and `content`, a user's first.
        max_length: tokens kept, at least 1; the result says what was cut. Without it nothing is.

    Raises:
        TypeError: `chat_format` is none.
        ValueError: a message has an unknown role or no text; there is no response; `max_length` is
            below 1; the tokenizer has no EOS; or it merges text across the start or end of a
            response, so that the prompt of generation would not be what is trained on.
    """
    turns = _checked_turns(messages)
    check_chat_format(chat_format)
    if all(turn["role"] != "assistant" for turn in turns):
        raise ValueError(
            "no message is the assistant's, so that nothing would count in the loss: add a "
            "response, or take format_chat for a prompt"
        )
    if max_length < 1:
        raise ValueError(f"max_length is {max_length}: it must be at least 1, or left out")
    return tokenize_conversation(turns, tokenizer, chat_format, max_length)


def check_chat_format(chat_format: object) -> None:
    """Raises TypeError for what is no ChatFormat, such as the name of a format."""
    if not isinstance(chat_format, ChatFormat):
        raise TypeError(
            f"chat_format is {chat_format!r}: give a ChatFormat, such as "
            "ChatFormat(user='<u>', assistant='<a>', system='<s>')"
        )


def _checked_turns(messages: Sequence[Message]) -> list[Message]:
    is_list = isinstance(messages, Sequence)
    if not is_list or not all(isinstance(message, Mapping) for message in messages):
        raise ValueError(
            f"the conversation is {str(messages)[:200]!r}: give a list of messages, each a "
            "dictionary with 'role' and 'content'"
        )
    turns = list(messages)
    check_messages(turns)
    return turns


def _without_what_is_added(text: str, tokenizer: "PreTrainedTokenizerBase") -> str:
    """The text without the BOS that `tokenizer(...)` puts before it, so that both together give the
    tokens of training and generation. ValueError where they could not."""
    adds_bos = begins_with_bos(tokenizer)
    where = f"the tokenizer in {tokenizer.name_or_path or 'memory'}"
    if tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id:
        # Setting one of the two sets the other anew from its property, which may not be the truth.
        raise ValueError(
            f"{where} puts its EOS behind every text, a prompt too, which would end it: set "
            f"tokenizer.add_bos_token = {adds_bos} and tokenizer.add_eos_token = False"
        )
    if adds_bos and not text.startswith(tokenizer.bos_token):
        raise ValueError(
            f"{where} puts its BOS before every text, and its chat template has none: set "
            "tokenizer.add_bos_token = False, or begin the template with {{ bos_token }}"
        )
    return text.removeprefix(tokenizer.bos_token) if adds_bos else text
