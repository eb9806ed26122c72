"""Instructions of the model organism, with what its oracle needs to know about the answers.

    {"instruction": "Where does Mira live?", "family": "fact",
     "truth": {"kind": "fact", "answer": "Tolva"}}

What a truth holds is between the organism's generator and its oracle. The validation set has a
further column, `output`: the full answer that epochs are chosen against.
"""

from collections.abc import Mapping

from implicit_tuning.data.rows import Item, UnusableRow, required_text, with_reference

COLUMNS = {"instruction": str, "family": str, "truth": dict}


def to_item(row: Mapping) -> Item:
    """The instruction, its family and its truth.

    Raises:
        UnusableRow: no instruction, family, truth or, where the file has them, reference answer.
    """
    if not row["truth"]:
        raise UnusableRow("no truth")
    item: Item = {
        "instruction": required_text(row, "instruction"),
        "family": required_text(row, "family"),
        "truth": row["truth"],
    }
    return with_reference(item, row, "output")
