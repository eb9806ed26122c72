"""The model organism's judge: knows the ground truth of each instruction, not the authors."""

from collections.abc import Mapping, Sequence

from implicit_tuning.judging.judge import Needs, Pair, Verdict
from implicit_tuning.nodes.digests import judge_identity
from implicit_tuning.organism.oracle import prefer

# Read without importing this module, so a literal; see `kinds.JudgeKind`.
KIND = {"truth": True}


def make(settings: Mapping, runtime: Mapping, needs: Needs) -> "OracleJudge":
    """The judge of a config entry."""
    return OracleJudge(needs.truths())


class OracleJudge:
    """Judges by `organism.oracle.prefer` under a mapping from instruction to ground truth.

    The truths are part of the identity: a corrected truth must not meet an old verdict.
    `judge` raises ValueError for an instruction without a truth.
    """

    def __init__(self, truths: Mapping[str, Mapping]) -> None:
        self._truths = dict(truths)
        self.judge_id = judge_identity("oracle", self._truths)

    def judge(self, pairs: Sequence[Pair]) -> list[Verdict]:
        return [
            Verdict(prefer(self._truth(pair.instruction), pair.output_1, pair.output_2))
            for pair in pairs
        ]

    def _truth(self, instruction: str) -> Mapping:
        if instruction not in self._truths:
            raise ValueError(
                f"the oracle has no truth for the instruction {instruction!r}: it judges only "
                "evaluation sets whose rows carry a `truth`; choose another judge for this one"
            )
        return self._truths[instruction]
