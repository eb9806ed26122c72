"""Stanford Alpaca (alpaca_data.json, or `tatsu-lab/alpaca` on the hub): 52,002 generated pairs.

    {"instruction": "Name the capital of the country.", "input": "France",
     "output": "The capital of France is Paris."}

The hub's file has a further column, `text`, which is not read.
"""

from collections.abc import Mapping

from implicit_tuning.data.rows import Message, required_text, single_turn, with_context

COLUMNS = {"instruction": str, "input": str, "output": str}


def to_messages(row: Mapping) -> list[Message]:
    """The instruction, with its input below if it has one, and the output.

    Raises:
        UnusableRow: no instruction, or no output (an empty input is usual).
    """
    instruction = with_context(required_text(row, "instruction"), row["input"])
    return single_turn(instruction, required_text(row, "output"))
