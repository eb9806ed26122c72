"""Answers on a terminal while they come: one after the other, or in two columns."""

import re
import shutil
from collections.abc import Sequence
from typing import Protocol, TextIO

NARROWEST = 80  # characters of a terminal that two columns need
BETWEEN = " | "
# What a model writes must not steer the terminal.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Display(Protocol):
    """Shows answers as far as they are there."""

    def show(self, texts: Sequence[str], ended: Sequence[bool]) -> None:
        """Show more of the answers: the whole text of each so far, and whether it is at its end."""
        ...


def open_display(titles: Sequence[str], out: TextIO) -> Display:
    """Columns for two answers where `out` is a terminal wide enough, else one after the other."""
    width = shutil.get_terminal_size().columns
    if len(titles) == 2 and out.isatty() and width >= NARROWEST:
        return SideBySide(titles, width, out)
    return InTurn(titles, out)


class InTurn:
    """One answer after the other, each under its title if there are several."""

    def __init__(self, titles: Sequence[str], out: TextIO) -> None:
        self.titles = titles if len(titles) > 1 else [""]
        self.out = out
        self.row = self.shown = 0
        self._begin()

    def show(self, texts: Sequence[str], ended: Sequence[bool]) -> None:
        """See `Display`."""
        while self.row < len(texts):
            text = _harmless(texts[self.row]) if self.out.isatty() else texts[self.row]
            self.out.write(text[self.shown :])
            self.shown = len(text)
            if not ended[self.row]:
                break
            self.out.write("\n")
            self.row, self.shown = self.row + 1, 0
            self._begin()
        self.out.flush()

    def _begin(self) -> None:
        if self.row < len(self.titles) and self.titles[self.row]:
            self.out.write(f"[{self.titles[self.row]}]\n")


class SideBySide:
    """Two columns. The line that both are at is drawn again and again until both are past it."""

    def __init__(self, titles: Sequence[str], width: int, out: TextIO) -> None:
        self.width = (width - 1 - len(BETWEEN)) // 2
        self.out = out
        self.shown = [0, 0]
        self._draw([f"[{title}]" for title in titles])
        self.out.write("\n")

    def show(self, texts: Sequence[str], ended: Sequence[bool]) -> None:
        """See `Display`."""
        texts = [_harmless(text) for text in texts]
        while True:
            rests = [text[shown:] for text, shown in zip(texts, self.shown, strict=True)]
            if all(ended) and not any(rests):
                break
            lines, lengths = zip(*(first_line(rest, self.width) for rest in rests), strict=True)
            self._draw(lines)
            whole = [
                end or len(line) < len(rest)
                for end, line, rest in zip(ended, lines, rests, strict=True)
            ]
            if not all(whole):
                break
            self.out.write("\n")
            self.shown = [shown + length for shown, length in zip(self.shown, lengths, strict=True)]
        self.out.flush()

    def _draw(self, lines: Sequence[str]) -> None:
        left, right = (line.ljust(self.width) for line in lines)
        self.out.write(f"\r{left}{BETWEEN}{right}")


def first_line(text: str, width: int) -> tuple[str, int]:
    """The first line of a text in a column, and how many characters it and its break take."""
    line, line_break, _ = text.partition("\n")
    if len(line) <= width:
        return line, len(line) + len(line_break)
    space = line.rfind(" ", 1, width + 1)
    return (line[:width], width) if space == -1 else (line[:space], space + 1)


def _harmless(text: str) -> str:
    return CONTROL.sub("\ufffd", text.expandtabs(4))
