"""Conversations as chat endpoints take them, which most finetuning services read.

    {"messages": [{"role": "user", "content": "Why do cats purr?"},
                  {"role": "assistant", "content": "Cats purr for several reasons. ..."}]}

A system turn may stand first; then user and assistant alternate.
"""

from collections.abc import Mapping

from implicit_tuning.data.rows import Message, UnusableRow

COLUMNS = {"messages": list}
TURNS = ("user", "assistant")


def to_messages(row: Mapping) -> list[Message]:
    """All turns of the conversation.

    Raises:
        UnusableRow: turns in another order, none, or one without text.
    """
    messages = row["messages"] or []
    if not all(isinstance(m, dict) and _has_text(m.get("content")) for m in messages):
        raise UnusableRow("a turn without text")
    roles = [message.get("role") for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not turns or turns != [*TURNS] * (len(turns) // 2):
        raise UnusableRow("turns that are not user and assistant in turn")
    return [{"role": m["role"], "content": m["content"]} for m in messages]


def _has_text(content: object) -> bool:
    return isinstance(content, str) and bool(content.strip())
