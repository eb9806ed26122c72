"""Verdicts that are kept, so that a comparison that stopped asks its judge only for the rest."""

from collections.abc import Mapping

from implicit_tuning.judging.judge import Verdict
from implicit_tuning.remote.answer_cache import AnswerCache


class VerdictCache(AnswerCache[Verdict]):
    """Verdicts by judge and pair, in the order in which the judge saw the outputs.

    Only good ones are kept: a failed one is asked for again.
    """

    def add(self, answers: Mapping[str, Verdict]) -> None:
        super().add({key: verdict for key, verdict in answers.items() if verdict.status == "ok"})

    def to_entry(self, answer: Verdict) -> dict:
        return {
            "logprobs": answer.logprobs,
            "n_cut": answer.n_cut,
            "preference": answer.preference,
        }

    def to_answer(self, entry: Mapping) -> Verdict:
        return Verdict(entry["preference"], "ok", entry["logprobs"], entry["n_cut"])
