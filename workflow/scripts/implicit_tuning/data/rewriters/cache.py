"""Rewrites that are kept, so that a run that stopped asks its rewriter only for the rest."""

from collections.abc import Mapping

from implicit_tuning.remote.answer_cache import AnswerCache


class RewriteCache(AnswerCache[str]):
    """New responses by rewriter, instruction and response."""

    def to_entry(self, answer: str) -> dict:
        return {"text": answer}

    def to_answer(self, entry: Mapping) -> str:
        text = entry["text"]
        if not (isinstance(text, str) and text.strip()):
            raise ValueError("no text")
        return text
