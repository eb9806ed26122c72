"""A file of rewrites, so that a run that stopped asks its rewriter only for the rest.

JSON Lines, entries by content: {"key": "5f0c…", "text": "Weak."}. Lines are only ever appended,
each in one write, so two processes that rewrite the same rows at once both end well; a line that a
crash tore is passed over with a warning.
"""

import hashlib
import json
import logging
from pathlib import Path

from implicit_tuning.digests import append_lines
from implicit_tuning.rewriting.rewriter import Exchange

logger = logging.getLogger(__name__)


class RewriteCache:
    """One rewriter's new responses, read from `path` if it exists; other rewriters' stay there."""

    def __init__(self, path: Path, rewriter_id: str) -> None:
        self._path = path
        self._rewriter_id = rewriter_id
        self._texts = _read(path) if path.exists() else {}

    def get(self, exchange: Exchange) -> str | None:
        return self._texts.get(self._key(exchange))

    def add(self, exchange: Exchange, text: str) -> None:
        """Stores a new response; on disk when this returns."""
        key = self._key(exchange)
        self._texts[key] = text
        append_lines(self._path, json.dumps({"key": key, "text": text}, sort_keys=True) + "\n")

    def _key(self, exchange: Exchange) -> str:
        return hashlib.sha256(json.dumps([self._rewriter_id, *exchange]).encode()).hexdigest()


def _read(path: Path) -> dict[str, str]:
    texts = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            entry = json.loads(line)
            key, text = entry["key"], entry["text"]
            if not (isinstance(text, str) and text.strip()):
                raise ValueError("no text")
            texts[key] = text
        except (ValueError, KeyError, TypeError):
            logger.warning("%s:%d is not a rewrite; its response is rewritten again", path, number)
    return texts
