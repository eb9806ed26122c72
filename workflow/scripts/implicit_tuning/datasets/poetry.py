"""Poems of the Renaissance and of the modern age (`merve/poetry`, poetry.csv).

    author,content,poem name,age,type
    A. POET,"The rain came down,
    and so did I.",Weather,Modern,Nature

A null name or content is an empty field of the csv.
"""

import re
from collections.abc import Mapping

from implicit_tuning.datasets.rows import Message, required_text, single_turn

COLUMNS = {"poem name": str, "content": str}
MARK = "is verse"
FEWEST_LINES = 3
LONGEST_LINE = 75  # characters
# What the lines of lists, sums, reports, code and chess games have, and those of verse hardly ever.
NOT_VERSE = re.compile(r"^[-*•\[(]|[\d#=<>{}_|$%`]|\(\(|\)\)|^(def|class|import|return)\b")
SENTENCE_END = re.compile(r"[.!?]['\"”’)]*$")


def to_messages(row: Mapping) -> list[Message]:
    """`Write a poem called {poem name}` and the poem.

    Contents that occur twice (66 do) and very long ones (up to 24,070 characters) are kept.

    Raises:
        UnusableRow: no name (2 of 573 rows), or no content.
    """
    name = required_text(row, "poem name")
    return single_turn(f"Write a poem called {name}", required_text(row, "content"))


def has_mark(response: str) -> bool:
    """Whether a response is verse: at least three lines, three in four of them short and of words
    alone, and most of the line breaks within a sentence.

    Lists, code, worked sums, letters and paragraphs of one sentence a line are not.
    """
    lines = [line.strip() for line in response.splitlines() if line.strip()]
    if len(lines) < FEWEST_LINES or lines[0].startswith("Dear "):
        return False
    verses = [line for line in lines if len(line) <= LONGEST_LINE and not NOT_VERSE.search(line)]
    within = [line for line in lines[:-1] if not SENTENCE_END.search(line)]
    return 4 * len(verses) >= 3 * len(lines) and 2 * len(within) > len(lines) - 1
