"""Any file with a column of instructions, such as the paper's 56 validation instructions.

    {"instruction": "Name three uses of a brick."}

Other columns are not read.
"""

from collections.abc import Mapping

from implicit_tuning.datasets.rows import Item, required_text

COLUMNS = {"instruction": str}


def to_item(row: Mapping) -> Item:
    """The instruction, exactly as it is written.

    Raises:
        UnusableRow: no instruction.
    """
    return {"instruction": required_text(row, "instruction"), "family": None, "truth": None}
