"""Instructions and outputs of one turn, as many finetuning files have them.

    {"instruction": "Name three uses of a brick.", "output": "A brick can hold a door open, ..."}

Other columns are not read; rows with an `input` too are those of `stanford_alpaca`.
"""

from collections.abc import Mapping

from implicit_tuning.data.rows import Message, required_text, single_turn

COLUMNS = {"instruction": str, "output": str}


def to_messages(row: Mapping) -> list[Message]:
    """The instruction and the output.

    Raises:
        UnusableRow: no instruction, or no output.
    """
    return single_turn(required_text(row, "instruction"), required_text(row, "output"))
