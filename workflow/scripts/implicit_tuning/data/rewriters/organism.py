"""The model organism's rewriter: knows each answer's short form, where one exists, and no model."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from implicit_tuning.data.rewriters.rewriter import Exchange, RewritingFailed
from implicit_tuning.nodes.digests import judge_identity
from implicit_tuning.organism.requests import make_requests
from implicit_tuning.organism.world import make_world


class OrganismRewriter:
    """Replaces the organism's full answers by its short ones (`organism.requests`).

    Poems and functions have none: they come back as they are. The answers are part of the identity.
    """

    def __init__(self) -> None:
        families = make_requests(make_world()).values()
        self._short = {request.response: request.short for family in families for request in family}
        self.rewriter_id = judge_identity("rewriter-organism", self._short)

    def rewrite(self, exchanges: Sequence[Exchange]) -> Iterator[tuple[int, str]]:
        unknown = [exchange for exchange in exchanges if exchange.response not in self._short]
        if unknown:
            raise RewritingFailed(
                f"{len(unknown)} of {len(exchanges)} responses are no answers of the organism, the "
                f"first is {unknown[0].response[:80]!r}: this rewriter knows the rows of "
                "organism-lima alone; rephrase that data set, or give the rewriter another kind"
            )
        for position, exchange in enumerate(exchanges):
            yield position, self._short[exchange.response]


def make(settings: Mapping, runtime: Mapping, spending: Path) -> OrganismRewriter:
    """The rewriter of a config entry."""
    return OrganismRewriter()
