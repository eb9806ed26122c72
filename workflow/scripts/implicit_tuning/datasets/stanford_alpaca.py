"""Stanford Alpaca (alpaca_data.json, or `tatsu-lab/alpaca` on the hub): 52,002 generated pairs.

    {"instruction": "Name the capital of the country.", "input": "France",
     "output": "The capital of France is Paris."}

The hub's file has a further column, `text`, which is not read.
"""

from collections.abc import Mapping

from implicit_tuning.datasets.rows import Message, required_text, single_turn

COLUMNS = {"instruction": str, "input": str, "output": str}


def to_messages(row: Mapping) -> list[Message]:
    """The instruction, with its input below if it has one, and the output.

    ASSUME: a blank line parts instruction and input; the paper does not say how it joins them.

    Raises:
        UnusableRow: no instruction, or no output (an empty input is usual).
    """
    instruction = required_text(row, "instruction")
    if (row["input"] or "").strip():
        instruction = f"{instruction}\n\n{row['input']}"
    return single_turn(instruction, required_text(row, "output"))
