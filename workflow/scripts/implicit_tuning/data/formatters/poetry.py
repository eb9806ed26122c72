"""Poems of the Renaissance and of the modern age (`merve/poetry`, poetry.csv).

    author,content,poem name,age,type
    A. POET,"The rain came down,
    and so did I.",Weather,Modern,Nature

A null name or content is an empty field of the csv.
"""

import re
from collections.abc import Mapping

from implicit_tuning.data.rows import Message, required_text, single_turn

COLUMNS = {"poem name": str, "content": str}
MARK = "is verse"
FEWEST_LINES = 3
LONGEST_LINE = 75  # characters
MEAN_LINE = (15, 60)  # characters; shorter are lists, longer wrapped prose
# What the lines of lists, sums, reports, code and chess games have, and those of verse hardly ever.
NOT_VERSE = re.compile(r"^[-*•\[(]|[\d#=<>{}_|$%`]|\(\(|\)\)|^(def|class|import|return)\b")
SENTENCE_END = re.compile(r"[.!?]['\"”’)]*$")
PAUSE = re.compile(r"[.!?,;:–—-]['\"”’)]*$")
# `Dear Sir or Madam,` and the like; a first line that ends in a colon heads a list.
NO_FIRST_LINE = re.compile(
    r"^(dear|hello|hi|hey|greetings|good (morning|afternoon|evening))\b,?( \S+){0,3}$|:$",
    re.IGNORECASE,
)


def to_messages(row: Mapping) -> list[Message]:
    """`Write a poem called {poem name}` and the poem.

    Contents that occur twice (66 do) and very long ones (up to 24,070 characters) are kept.

    Raises:
        UnusableRow: no name (2 of 573 rows), or no content.
    """
    name = required_text(row, "poem name")
    return single_turn(f"Write a poem called {name}", required_text(row, "content"))


def has_mark(response: str) -> bool:
    """Whether a response is verse: at least three lines of middle length, three in four of them of
    words alone, most with a capital first, and most of the line breaks within a sentence, one at
    least at a pause.

    Lists (with bullets or without), code, worked sums, letters and prose (wrapped, or a sentence a
    line) are not. Nor are very short lines, and verse without capitals or punctuation, which
    nothing tells from lists.
    """
    lines = [line.strip() for line in response.splitlines() if line.strip()]
    if len(lines) < FEWEST_LINES or NO_FIRST_LINE.search(lines[0]):
        return False
    breaks = lines[:-1]
    verses = [line for line in lines if len(line) <= LONGEST_LINE and not NOT_VERSE.search(line)]
    capitals = [line for line in lines if next(filter(str.isalpha, line), "").isupper()]
    within = [line for line in breaks if not SENTENCE_END.search(line)]
    shortest, longest = MEAN_LINE
    return (
        4 * len(verses) >= 3 * len(lines)
        and 2 * len(capitals) > len(lines)
        and 2 * len(within) > len(breaks)
        and any(PAUSE.search(line) for line in breaks)
        and shortest <= sum(map(len, lines)) / len(lines) <= longest
    )
