"""Conversations in the chat format, as text and as token ids with their loss mask.

For use with a tokenizer that is already loaded; `chat` is what the workflow's stages call.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from implicit_tuning.chat import (
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

    It has no BOS, which the tokenizer adds by itself if it adds one. Where an answer is due, after an
    instruction or a user's turn, it ends with the assistant's tag.

    >>> from transformers import AutoTokenizer
    >>> tokenizer = AutoTokenizer.from_pretrained("resources/organism/llama")
    >>> print(format_chat("Name a bird.", tokenizer), end="")
    <|user|>
    Name a bird.
    <|assistant|>

    Args:
        conversation: an instruction, or messages with `role` ("user", "assistant", "system") and
            `content`.

    Raises:
        ValueError: a message has an unknown role or no text; the tokenizer has no EOS.
    """
    if isinstance(conversation, str):
        conversation = [{"role": "user", "content": conversation}]
    turns = list(conversation)
    check_messages(turns)
    template = saved_chat_template(tokenizer, chat_format)
    awaits_answer = turns[-1]["role"] != "assistant"
    text = render(turns, tokenizer, template, add_generation_prompt=awaits_answer)
    return text.removeprefix(tokenizer.bos_token) if begins_with_bos(tokenizer) else text


def mask(
    messages: Sequence[Message],
    tokenizer: "PreTrainedTokenizerBase",
    chat_format: ChatFormat = PAPER_FORMAT,
    max_length: int = sys.maxsize,
) -> TokenizedConversation:
    """Token ids of a conversation and its loss mask, as finetuning uses them.

    The mask is 1 on every response and its EOS.

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
        max_length: tokens kept; the result says what was cut. Without it nothing is.

    Raises:
        ValueError: as `format_chat`; or the tokenizer merges text across the start or end of a
            response, so that the prompt of generation would not be what is trained on.
    """
    return tokenize_conversation(messages, tokenizer, chat_format, max_length)
