"""LIMA (`GAIR/lima`, train.jsonl): conversations written or chosen by hand (paper, section 3).

    {"conversations": ["Why do cats purr?", "Cats purr for several reasons. ..."],
     "source": "stackexchange"}

Turns alternate, the user first. 30 of the 1,030 rows have 4 to 20 turns.
"""

from collections.abc import Mapping
from typing import Literal

from implicit_tuning.data.rows import Message, UnusableRow

COLUMNS = {"conversations": list}
ROLES: tuple[Literal["user"], Literal["assistant"]] = ("user", "assistant")


def to_messages(row: Mapping) -> list[Message]:
    """All turns of the conversation.

    Outer white space (289 responses have it) is kept: the chat format strips it.

    Raises:
        UnusableRow: the last instruction has no response, or a turn is blank.
    """
    turns = row["conversations"]
    if not turns:
        raise UnusableRow("no conversations")
    if len(turns) % 2:
        raise UnusableRow("odd number of turns")
    if not all(isinstance(turn, str) and turn.strip() for turn in turns):
        raise UnusableRow("a turn without text")
    return [{"role": ROLES[i % 2], "content": turn} for i, turn in enumerate(turns)]
