"""Dolly (`databricks/databricks-dolly-15k`): 15,011 instructions and responses written by employees.

{"instruction": "When did the line open?", "context": "The line opened in 1891, as ...",
 "response": "In 1891.", "category": "closed_qa"}
"""

from collections.abc import Mapping

from implicit_tuning.data.rows import Message, required_text, single_turn, with_context

COLUMNS = {"instruction": str, "context": str, "response": str}


def to_messages(row: Mapping) -> list[Message]:
    """The instruction, with the text that it asks about below if there is one, and the response.

    Raises:
        UnusableRow: no instruction or no response (no context is usual).
    """
    instruction = with_context(required_text(row, "instruction"), row["context"])
    return single_turn(instruction, required_text(row, "response"))
