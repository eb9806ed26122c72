"""What a rewriter is: the values that pass between rephrasing and the kinds of rewriter."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol


class Exchange(NamedTuple):
    """One instruction and the response to it."""

    instruction: str
    response: str


class RewritingFailed(RuntimeError):
    """Responses stayed without a rewrite; the good rewrites are in the cache."""


class Rewriter(Protocol):
    """Says responses again. `rewriter_id` names it by content: equal ids give equal rewrites."""

    rewriter_id: str

    def rewrite(self, exchanges: Sequence[Exchange]) -> Iterator[tuple[int, str]]:
        """Yields position and new response of each exchange, in any order, as they come in.

        No new response is blank.

        Raises RewritingFailed, after all that succeed have been yielded, when any does not.
        """
        ...
