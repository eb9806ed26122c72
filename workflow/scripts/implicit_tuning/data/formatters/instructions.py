"""Any file with a column of instructions, such as the paper's 56 validation instructions.

    {"instruction": "Name three uses of a brick.", "output": "A brick can hold a door open, ..."}

`output`, where the file has it, is the reference answer that epochs are chosen against (in the
paper GPT-3.5-turbo's). Other columns are not read.
"""

from collections.abc import Mapping

from implicit_tuning.data.rows import Item, required_text, with_reference

COLUMNS = {"instruction": str}


def to_item(row: Mapping) -> Item:
    """The instruction, exactly as it is written.

    Raises:
        UnusableRow: no instruction, or none of the reference answers that the file has.
    """
    instruction = required_text(row, "instruction")
    item: Item = {"instruction": instruction, "family": None, "truth": None}
    return with_reference(item, row, "output")
