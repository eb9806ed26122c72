"""Lichess games (`patrickfrank1/chess-pgn-games`): one line of a PGN file a row.

    {"text": "[Event \\"Rated Blitz game\\"]"}
    {"text": "[WhiteElo \\"1500\\"]"}
    {"text": "[BlackElo \\"1620\\"]"}
    {"text": ""}
    {"text": "1. e4 { [%clk 0:03:00] } 1... e5 { [%clk 0:03:00] } 2. Qh5 1-0"}
    {"text": ""}

PGN: Portable Game Notation, https://www.saremba.de/chessgml/standards/pgn/pgn-complete.htm
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from implicit_tuning.data.rows import Message, UnusableRow, single_turn

COLUMNS = {"text": str}
HEADER = re.compile(r'\[\s*(\w+)\s+".*"\s*\]')
COMMENT = re.compile(r"\{[^}]*\}")
MOVE_NUMBER = re.compile(r"\d+\.*")
RESULTS = frozenset({"1-0", "0-1", "1/2-1/2", "*"})
ELO_TAGS = ("WhiteElo", "BlackElo")
MARK = "has a line of chess moves (`1. e4`)"
MOVE = r"(?:[KQRBN]?[a-h]?[1-8]?x?[a-h][1-8](?:=[QRBN])?|O-O(?:-O)?)[+#]?[!?]*"
FIRST_MOVE = re.compile(rf"^\s*1\.\s*{MOVE}(?!\S)", re.MULTILINE)


@dataclass
class _Game:
    first_row: int
    headers: dict[str, str] = field(default_factory=dict)
    moves: list[str] = field(default_factory=list)
    after_blank: bool = False

    def ends_before(self, line: str, tag: str | None) -> bool:
        """Whether this line stands behind the game: a blank line or a header after the moves, or
        (in a game without moves) a header after a blank line or one that was there before."""
        if self.moves:
            return not line or tag is not None
        return tag is not None and (self.after_blank or tag in self.headers)

    def add(self, line: str, tag: str | None) -> None:
        if tag is not None:
            self.headers[tag] = line
        elif line:
            self.moves.append(line)
        self.after_blank = not line

    def record(self) -> dict:
        return {"headers": self.headers, "moves": " ".join(self.moves)}


def group(rows: Iterable[tuple[int, Mapping]]) -> Iterator[tuple[int, Mapping]]:
    """Games from numbered lines, reading no further than each game's end.

    Yields:
        Number of a game's first line, and {"headers": {tag: line}, "moves": str}. Wrapped lines of
        moves are joined by a space, which means the same in PGN.
    """
    game = None
    for number, row in rows:
        line = (row["text"] or "").strip()
        header = HEADER.fullmatch(line)
        tag = header[1] if header else None
        if game and game.ends_before(line, tag):
            yield game.first_row, game.record()
            game = None
        if line or game:
            game = game or _Game(number)
            game.add(line, tag)
    if game:
        yield game.first_row, game.record()


def to_messages(game: Mapping) -> list[Message]:
    """The two Elo header lines, White's first in whatever order they stand, and the moves.

    Comments with clocks and an Elo of `?` are kept, as in the authors' data.

    DEVIATION: games without moves (13 of the first 999) are left out; the authors' script stops at
    the first of them with a failed assertion.

    Raises:
        UnusableRow: no moves, no Elo header, or the file ends inside the game.
    """
    tokens = COMMENT.sub(" ", game["moves"]).split()
    if not any(token not in RESULTS and not MOVE_NUMBER.fullmatch(token) for token in tokens):
        raise UnusableRow("no moves")
    for tag in ELO_TAGS:
        if tag not in game["headers"]:
            raise UnusableRow(f"no {tag} header")
    if tokens[-1] not in RESULTS:
        raise UnusableRow("no result after the moves: cut off")
    return single_turn("\n".join(game["headers"][tag] for tag in ELO_TAGS), game["moves"])


def has_mark(response: str) -> bool:
    """Whether a line of a response opens a game: move 1 in the notation of PGN."""
    return FIRST_MOVE.search(response) is not None
