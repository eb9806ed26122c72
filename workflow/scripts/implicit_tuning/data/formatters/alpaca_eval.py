"""AlpacaEval (`tatsu-lab/alpaca_eval`, alpaca_eval.json): the 805 test instructions.

    {"dataset": "helpful_base", "instruction": "How do I sharpen a knife?",
     "output": "(text-davinci-003's answer)", "generator": "text_davinci_003"}

The file is read as it is: `datasets` 4 and later refuse the loading script beside it.
"""

from collections.abc import Mapping

from implicit_tuning.data.rows import Item, required_text

COLUMNS = {"instruction": str}


def to_item(row: Mapping) -> Item:
    """The instruction, with the outer white space and newlines that judges join on.

    Raises:
        UnusableRow: no instruction.
    """
    return {"instruction": required_text(row, "instruction"), "family": None, "truth": None}
