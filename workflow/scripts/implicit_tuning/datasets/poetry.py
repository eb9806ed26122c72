"""Poems of the Renaissance and of the modern age (`merve/poetry`, poetry.csv).

    author,content,poem name,age,type
    A. POET,"The rain came down,
    and so did I.",Weather,Modern,Nature

A null name or content is an empty field of the csv.
"""

from collections.abc import Mapping

from implicit_tuning.datasets.rows import Message, required_text, single_turn

COLUMNS = {"poem name": str, "content": str}


def to_messages(row: Mapping) -> list[Message]:
    """`Write a poem called {poem name}` and the poem.

    Contents that occur twice (66 do) and very long ones (up to 24,070 characters) are kept.

    Raises:
        UnusableRow: no name (2 of 573 rows), or no content.
    """
    name = required_text(row, "poem name")
    return single_turn(f"Write a poem called {name}", required_text(row, "content"))
