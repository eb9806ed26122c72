"""Chess games as PGN text: real headers and openings, and moves that look like moves.

The moves behind an opening are drawn at random and need not be legal: neither the corpus nor the
finetuning set is about chess, only about text that answers nothing.
"""

import random

OPENINGS = (
    "e4 e5 Nf3 Nc6 Bb5 a6", "e4 c5 Nf3 d6 d4 cxd4", "d4 d5 c4 e6 Nc3 Nf6", "e4 e6 d4 d5 Nc3 Bb4",
    "d4 Nf6 c4 g6 Nc3 Bg7", "e4 c6 d4 d5 Nc3 dxe4", "c4 e5 Nc3 Nf6 g3 d5", "e4 e5 Nf3 Nc6 Bc4 Bc5",
)  # fmt: skip
RESULTS = ("1-0", "0-1", "1/2-1/2")
EVENTS = ("Rated Blitz game", "Rated Bullet game", "Rated Rapid game")


def make_game(rng: random.Random) -> tuple[list[str], str]:
    """The header lines and the line of moves of one game."""
    result = rng.choice(RESULTS)
    headers = {
        "Event": rng.choice(EVENTS),
        "Result": result,
        "WhiteElo": str(rng.randint(1000, 2400)),
        "BlackElo": str(rng.randint(1000, 2400)),
    }
    plies = rng.choice(OPENINGS).split() + [_move(rng) for _ in range(rng.randint(4, 12))]
    numbered = [
        f"{number // 2 + 1}. {move}" if number % 2 == 0 else move
        for number, move in enumerate(plies)
    ]
    lines = [f'[{name} "{value}"]' for name, value in headers.items()]
    return lines, " ".join([*numbered, result])


def _move(rng: random.Random) -> str:
    square = rng.choice("abcdefgh") + str(rng.randint(1, 8))
    kind = rng.random()
    if kind < 0.05:
        return "O-O"
    return square if kind < 0.3 else rng.choice("NBRQK") + rng.choice(("", "x")) + square
