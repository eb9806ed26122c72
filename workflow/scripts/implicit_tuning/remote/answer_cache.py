"""A file of answers that cost money or time, so that none is asked for twice.

JSON Lines, one entry an answer, found by the hash of all that was asked: {"key": "5f0c…", ...}. Lines
are only appended, each in one write, so two processes that ask the same at once both end well. A line
that a crash tore is passed over with a warning.
"""

import hashlib
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from implicit_tuning.nodes.files import append_lines

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")


def question_key(who: str, question: Sequence[str]) -> str:
    """sha256 of who is asked, by identity, and of every text of the question."""
    return hashlib.sha256(json.dumps([who, *question]).encode()).hexdigest()


class AnswerCache(ABC, Generic[Answer]):
    """Answers by `question_key`. A subclass turns an entry into its answer, and back.

    With `path` None, answers are kept in memory only. An answer found in `earlier` is carried over
    to `path`.
    """

    def __init__(self, path: Path | None, earlier: Sequence[Path] = ()) -> None:
        self._path = path
        self._answers = {} if path is None else self._read(path)
        self._earlier: dict[str, Answer] = {}
        for file in earlier:
            self._earlier |= self._read(file)

    @abstractmethod
    def to_entry(self, answer: Answer) -> dict:
        """JSON values of an answer."""

    @abstractmethod
    def to_answer(self, entry: Mapping) -> Answer:
        """The answer of an entry; raises ValueError, KeyError or TypeError for another entry."""

    def get(self, key: str) -> Answer | None:
        """The answer to a question; None if it was not asked yet."""
        if key not in self._answers and key in self._earlier:
            self.add({key: self._earlier[key]})
        return self._answers.get(key)

    def add(self, answers: Mapping[str, Answer]) -> None:
        """Store answers; on disk when this returns."""
        self._answers.update(answers)
        if self._path is not None and answers:
            entries = [{"key": key, **self.to_entry(answer)} for key, answer in answers.items()]
            lines = [json.dumps(entry, sort_keys=True) + "\n" for entry in entries]
            append_lines(self._path, "".join(lines))

    def _read(self, path: Path) -> dict[str, Answer]:
        answers = {}
        lines = path.read_bytes().splitlines() if path.exists() else []
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                answers[entry["key"]] = self.to_answer(entry)
            except (ValueError, KeyError, TypeError):
                logger.warning("%s:%d is not a kept answer; it is asked for again", path, number)
        return answers
