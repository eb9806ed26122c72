"""The examples of a report: answers side by side, each with its difference from another."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

# Longer answers are cut, for the time of a diff grows with their square; the .csv has them whole.
MOST_CHARACTERS = 4000
WORDS = re.compile(r"\s+|\S+")
VERDICTS = {"win": "wins", "tie": "ties", "loss": "loses"}


@dataclass(frozen=True)
class Answer:
    """What one adaptation answered.

    Attributes:
        output: its text, cut to MOST_CHARACTERS; `cut` says whether.
        remarks: how it fared and how long it is.
        changes: the words of the answer that it was compared with and of this one as (kind, text),
            kind "same", "ins" (only here) or "del" (only there); None for the reference.
        origin: numbers of its nodes, for the page.
    """

    base: str
    adaptation: str
    output: str
    cut: bool
    remarks: str
    changes: list[tuple[str, str]] | None
    origin: str


@dataclass(frozen=True)
class Question:
    """An instruction of the evaluation set and all answers to it."""

    index: str
    instruction: str
    answers: list[Answer]


def questions(
    rows: Iterable[Mapping], reference: str, origin_of: Mapping[tuple, str]
) -> list[Question]:
    """Instructions with their answers, in the order of the rows.

    A row has the columns of the table of examples. One without `against` was compared with
    `reference`. `origin_of` gives numbers of nodes by (base, adaptation).
    """
    grouped: dict[tuple[str, str], list[Mapping]] = {}
    for row in rows:
        grouped.setdefault((row["index"], row["instruction"] or ""), []).append(row)
    return [
        Question(index, instruction, _answers(group, reference, origin_of))
        for (index, instruction), group in grouped.items()
    ]


def _answers(
    rows: Sequence[Mapping], reference: str, origin_of: Mapping[tuple, str]
) -> list[Answer]:
    texts = {(row["base"], row["adaptation"]): _start(row) for row in rows}
    made = []
    for row in rows:
        against = row.get("against") or reference
        compared = None if against == row["adaptation"] else texts.get((row["base"], against))
        made.append(
            Answer(
                base=row["base"],
                adaptation=row["adaptation"],
                output=_start(row),
                cut=len(row["output"] or "") > MOST_CHARACTERS,
                remarks=_remarks(row, against, reference),
                changes=None if compared is None else changes(compared, _start(row)),
                origin=origin_of[row["base"], row["adaptation"]],
            )
        )
    return made


def _start(row: Mapping[str, str | None]) -> str:
    return (row["output"] or "")[:MOST_CHARACTERS]


def _remarks(row: Mapping[str, str | None], against: str, reference: str) -> str:
    told = VERDICTS.get(row["verdict"] or "", row["verdict"] or "not judged")
    if row["adaptation"] == against:
        told = "reference"
    elif against != reference:
        told += f" against {against}"
    length = f"{row['n_tokens']} tokens" if row["n_tokens"] else ""
    ended = "cut at the limit" if row["finish"] == "length" else ""
    return ", ".join(filter(None, (told, length, ended)))


def changes(reference: str, output: str) -> list[tuple[str, str]]:
    """How an answer differs from another, its reference, word by word.

    Pieces are ("same" | "ins" | "del", text): without the "del" they are the answer, without the
    "ins" the reference.
    """
    old, new = WORDS.findall(reference), WORDS.findall(output)
    pieces: list[tuple[str, str]] = []
    # Equal spaces between unequal words are no likeness.
    for kind, start, end, new_start, new_end in SequenceMatcher(
        str.isspace, old, new
    ).get_opcodes():
        if kind == "equal":
            pieces.append(("same", "".join(new[new_start:new_end])))
            continue
        pieces += [("del", "".join(old[start:end]))] if start < end else []
        pieces += [("ins", "".join(new[new_start:new_end]))] if new_start < new_end else []
    return pieces
