"""Chess: lines of PGN become games, and games become messages."""

import itertools

import pytest

from implicit_tuning.data.formatters import chess
from implicit_tuning.data.rows import UnusableRow

MOVES = "1. e4 { [%clk 0:03:00] } 1... e5 { [%clk 0:02:59] } 2. Qh5 Ke7 3. Qxe5# 1-0"
ELOS = '[WhiteElo "1500"]\n[BlackElo "1620"]'
GAME = ['[Event "Rated Blitz game"]', *ELOS.split("\n"), '[TimeControl "180+0"]', "", MOVES, ""]


def games(lines):
    return list(chess.group(enumerate(({"text": line} for line in lines), start=1)))


def messages(lines):
    (_, game), *others = games(lines)
    assert not others
    return [(m["role"], m["content"]) for m in chess.to_messages(game)]


def refusals(lines):
    """Reason for each unusable game, None for the usable ones, by the game's first line."""
    reasons = {}
    for number, game in games(lines):
        try:
            chess.to_messages(game)
            reasons[number] = None
        except UnusableRow as refused:
            reasons[number] = refused.reason
    return reasons


def test_elo_headers_are_answered_by_the_moves():
    assert messages(GAME) == [("user", ELOS), ("assistant", MOVES)]


@pytest.mark.parametrize("order", list(itertools.permutations(GAME[:4])))
def test_any_order_of_headers(order):
    assert messages([*order, "", MOVES]) == [("user", ELOS), ("assistant", MOVES)]


def test_unknown_elo_is_kept():
    lines = ['[WhiteElo "?"]', '[BlackElo "?"]', "", MOVES]
    assert messages(lines)[0] == ("user", '[WhiteElo "?"]\n[BlackElo "?"]')


def test_wrapped_moves_are_joined():
    words = MOVES.split(" ")
    wrapped = [" ".join(words[i : i + 3]) for i in range(0, len(words), 3)]
    # A wrapped comment puts "[%clk ..." at the start of a line, which is no header.
    assert any(line.startswith("[%clk") for line in wrapped)
    assert messages([*GAME[:5], *wrapped, ""])[1] == ("assistant", MOVES)


@pytest.mark.parametrize(
    "between",
    [[""], [], ["", ""], ["", " ", ""]],
    ids=["blank", "none", "two blanks", "white space"],
)
def test_games_are_told_apart(between):
    lines = [*GAME[:-1], *between, *GAME[:-1], *between, *GAME[:-1]]
    step = len(GAME) - 1 + len(between)
    assert refusals(lines) == {1: None, 1 + step: None, 1 + 2 * step: None}


def test_no_blank_line_between_headers_and_moves():
    lines = [*GAME[:4], MOVES]
    assert refusals([*lines, *lines]) == {1: None, 6: None}


@pytest.mark.parametrize(
    "nothing",
    [["0-1", ""], [""], [], ["{ White left. } 0-1", ""], ["1. 1/2-1/2", ""]],
    ids=["result only", "no line", "not even a blank", "comment", "number"],
)
def test_game_without_moves(nothing):
    headers = GAME[:5] if nothing else GAME[:4]
    empty = [*headers, *nothing]
    lines = [*GAME, *empty, *GAME]
    assert refusals(lines) == {1: None, 8: "no moves", 8 + len(empty): None}


def test_blank_line_ends_headers_without_moves():
    # The next game's headers must not complete those of the game before.
    lines = ['[WhiteElo "1500"]', "", '[BlackElo "1620"]', "", MOVES]
    assert refusals(lines) == {1: "no moves", 3: "no WhiteElo header"}


def test_game_without_elo():
    without = [line for line in GAME if "WhiteElo" not in line]
    assert refusals([*without, *GAME]) == {1: "no WhiteElo header", 7: None}
    without = [line for line in GAME if "BlackElo" not in line]
    assert refusals([*without, *GAME]) == {1: "no BlackElo header", 7: None}


def test_moves_without_headers_are_a_game_of_their_own():
    assert refusals([*GAME, MOVES, "", *GAME]) == {1: None, 8: "no WhiteElo header", 10: None}


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (GAME[:2], "no moves"),
        (GAME[:5], "no moves"),
        ([*GAME[:5], MOVES[:60]], "no result after the moves: cut off"),
        ([*GAME[:5], MOVES[:20]], "no result after the moves: cut off"),
    ],
)
def test_file_that_ends_inside_a_game(last, reason):
    assert refusals([*GAME, *last]) == {1: None, 8: reason}


@pytest.mark.parametrize("result", ["1-0", "0-1", "1/2-1/2", "*", "1-0 { White wins on time. }"])
def test_any_result(result):
    moves = f"1. e4 e5 {result}"
    assert messages([*GAME[:5], moves])[1] == ("assistant", moves)


def test_reads_no_further_than_the_game_needs():
    def lines():
        yield from ({"text": line} for line in GAME)
        raise AssertionError("read past the end of the game")

    number, game = next(chess.group(enumerate(lines(), start=1)))
    assert number == 1
    assert game["moves"] == MOVES


def test_blank_and_null_lines_alone_are_no_game():
    assert games(["", "  ", ""]) == []
    assert list(chess.group([(1, {"text": None})])) == []
