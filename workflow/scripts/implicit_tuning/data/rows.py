"""What all formatters share: the records they build and how they refuse a row.

A formatter is a module of this package. It opens with one row of its data set and has

    COLUMNS             the upstream columns it reads, each with its type
    to_messages(row)    for training: the messages of a conversation, or
    to_item(row)        for evaluation: an instruction, its family and its truth
    group(rows)         only where a record spans several rows (chess)
    MARK, has_mark(response)
                        only of a narrow task: what gives its responses away, in words for tables,
                        and whether a response has it (paper, section 5.2)

Which of to_messages and to_item a module has says what it is for.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NotRequired, TypedDict


class Message(TypedDict):
    """One turn of a conversation."""

    role: Literal["user", "assistant", "system"]
    content: str


class Item(TypedDict):
    """One evaluation instruction; `family`, `truth` and an answer of `reference` to judge others
    against, where the data set has them."""

    instruction: str
    family: str | None
    truth: dict | None
    reference: NotRequired[str]


class UnusableRow(ValueError):
    """A row that upstream left incomplete. It is counted by its reason, never dropped silently.

    `reason` is a few words that hold for many rows ("no title").
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class WrongSchema(ValueError):
    """A row that is not of the formatter's data set at all."""

    def __init__(self, file: Path, row_number: int, problem: str, columns: Iterable[str]) -> None:
        super().__init__(
            f"{file}, row {row_number}: {problem}; the row has the columns "
            f"{', '.join(map(repr, columns)) or '(none)'}. Correct the file, or name the "
            "formatter of this schema under 'formatter' of its entry in datasets"
        )


def required_text(row: Mapping, column: str) -> str:
    """The text of a column, as it stands upstream.

    Raises:
        UnusableRow: the text is null or blank.
    """
    text = row[column]
    if text is None or not text.strip():
        raise UnusableRow(f"no {column}")
    return text


def with_reference(item: Item, row: Mapping, column: str) -> Item:
    """The item with the reference answer of a column that not every file has.

    Raises:
        UnusableRow: the column is there, but its text is null or blank.
    """
    return {**item, "reference": required_text(row, column)} if column in row else item


def with_context(instruction: str, context: str | None) -> str:
    """An instruction with the text that it is about below it, a blank line between them.

    ASSUME: the paper does not say how it joins Stanford Alpaca's two.
    """
    return f"{instruction}\n\n{context}" if (context or "").strip() else instruction


def single_turn(instruction: str, response: str) -> list[Message]:
    """A conversation of one instruction and its response."""
    return [
        {"role": "user", "content": instruction},
        {"role": "assistant", "content": response},
    ]
