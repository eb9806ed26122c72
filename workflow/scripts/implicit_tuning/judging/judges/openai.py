"""A judge behind any OpenAI-compatible chat endpoint, paid or self-hosted, by AlpacaEval 2's prompt.

Where the server gives log-probabilities the verdict is AlpacaEval 2's weighted one, elsewhere the
discrete one of the answer's text; the annotations say which.
"""

import importlib.metadata
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from implicit_tuning.judging.judge import JudgingFailed, Needs, Pair, Status, Verdict
from implicit_tuning.judging.prompt import (
    capped,
    estimated_tokens,
    messages,
    prompt_sha256,
    verdict_from_logprobs,
    verdict_from_text,
)
from implicit_tuning.nodes.digests import judge_identity
from implicit_tuning.remote.concurrency import Asking
from implicit_tuning.remote.endpoint import Answer, Endpoint, NoAnswer, make_endpoint
from implicit_tuning.remote.failures import EndpointFailed
from implicit_tuning.remote.ledger import Ledger

logger = logging.getLogger(__name__)

# Read without importing this module, so a literal; see `kinds.JudgeKind`.
KIND = {
    "decides": {
        "model": {"type": "string", "minLength": 1},
        "temperature": {"type": "number", "minimum": 0, "default": 0.0},
        "max_tokens": {"type": "integer", "minimum": 1, "default": 1},
        "logprobs": {"enum": [True, False, "auto"], "default": "auto"},
        "top_logprobs": {"type": "integer", "minimum": 2, "maximum": 20, "default": 5},
        "max_output_characters": {"type": "integer", "minimum": 1, "default": 20_000},
    },
    "endpoint": True,
}
# Pairs in a row without a verdict after which the endpoint counts as down.
GIVE_UP_AFTER = 25
SHOWN_OF_AN_INSTRUCTION = 60


@dataclass(frozen=True)
class Question:
    """What decides the verdicts of a model that judges.

    Attributes:
        model: pinned name; a name that moves to other weights makes old verdicts false.
        logprobs: True asks for them and needs them, False does not ask, "auto" does without where
            the server does.
        max_output_characters: longer outputs are cut there, on both sides alike, and counted.
    """

    model: str
    temperature: float
    max_tokens: int
    logprobs: bool | Literal["auto"]
    top_logprobs: int
    max_output_characters: int

    @property
    def judge_id(self) -> str:
        """Identity over these, the prompt and the installed alpaca-eval; not the address."""
        version = importlib.metadata.version("alpaca-eval")
        made_of = {"prompt": prompt_sha256(), "alpaca-eval": version}
        return judge_identity("openai", asdict(self) | made_of)


def make(settings: Mapping, runtime: Mapping, needs: Needs) -> "OpenAIJudge":
    """The judge of a config entry."""
    asked = ("model", "temperature", "max_tokens", "logprobs", "top_logprobs")
    question = Question(
        max_output_characters=settings["max_output_characters"],
        **{key: settings[key] for key in asked},
    )
    endpoint = make_endpoint(settings["model"], runtime, needs.spending, question.judge_id)
    return OpenAIJudge(question, endpoint, runtime["concurrency"])


class OpenAIJudge:
    """Asks `question.model` behind `endpoint`, `concurrency` calls at once.

    Pairs whose calls fail for good get `judge_failed` or `parse_failed`, and the others go on.
    `stream` raises JudgingFailed, after all calls under way have been yielded, when no further call
    makes sense: a wrong key or model, a server that is down, `max_usd`.
    """

    def __init__(self, question: Question, endpoint: Endpoint, concurrency: int) -> None:
        self.judge_id = question.judge_id
        self._question = question
        self._endpoint = endpoint
        self._concurrency = concurrency
        self._asks_logprobs = question.logprobs is not False

    @property
    def calls(self) -> int:
        """Requests sent so far, repeated ones among them."""
        return self._endpoint.calls

    def judge(self, pairs: Sequence[Pair]) -> list[Verdict]:
        verdicts = dict(self.stream(pairs))
        return [verdicts[pair] for pair in pairs]

    def stream(self, pairs: Sequence[Pair]) -> Iterator[tuple[Pair, Verdict]]:
        """Yields each pair with its verdict as soon as it is there."""
        if not pairs:
            return
        asking = Asking(
            self._endpoint,
            f"judge {self.judge_id}",
            self._verdict,
            lambda: self._announce(pairs),
            self._concurrency,
            GIVE_UP_AFTER,
        )
        good = 0
        try:
            for position, reply in asking.replies(pairs):
                pair = pairs[position]
                verdict = self._without(pair, reply) if isinstance(reply, NoAnswer) else reply
                good += verdict.status == "ok"
                yield pair, verdict
        except EndpointFailed as failure:
            raise JudgingFailed(
                f"{failure}; judged {good} of {len(pairs)} pairs, {len(pairs) - good} remain; "
                "with a cache the good verdicts are kept, and the next run asks for the rest only"
            ) from failure

    def _without(self, pair: Pair, failure: NoAnswer) -> Verdict:
        """What stands for the verdict on a pair that has none."""
        _, n_cut = capped(pair, self._question.max_output_characters)
        shown = pair.instruction[:SHOWN_OF_AN_INSTRUCTION]
        logger.warning("no verdict on %r: %s", shown, failure)
        status: Status = "parse_failed" if failure.unreadable else "judge_failed"
        return Verdict(None, status, n_cut=n_cut, reason=str(failure))

    async def _verdict(self, pair: Pair) -> Verdict:
        shown, n_cut = capped(pair, self._question.max_output_characters)
        verdict = self._read(await self._ask(shown), n_cut)
        if verdict.status != "ok":
            raise NoAnswer("the reply names neither output", unreadable=True)
        return verdict

    async def _ask(self, pair: Pair) -> Answer:
        try:
            return await self._endpoint.ask(messages(pair), **self._parameters())
        except NoAnswer as failure:
            if self._question.logprobs != "auto" or "logprob" not in str(failure):
                raise
        logger.warning("the endpoint refuses to give log-probabilities: verdicts are discrete")
        self._asks_logprobs = False
        return await self._endpoint.ask(messages(pair), **self._parameters())

    def _parameters(self) -> dict[str, Any]:
        question = self._question
        parameters = {"temperature": question.temperature, "max_tokens": question.max_tokens}
        if self._asks_logprobs:
            parameters |= {"logprobs": True, "top_logprobs": question.top_logprobs}
        return parameters

    def _read(self, answer: Answer, n_cut: int) -> Verdict:
        if self._asks_logprobs and answer.logprobs is not None:
            return verdict_from_logprobs(answer.logprobs, n_cut)
        if self._question.logprobs is True:
            raise NoAnswer("an answer without log-probabilities", unreadable=True)
        return verdict_from_text(answer.text, n_cut)

    def _announce(self, pairs: Sequence[Pair]) -> None:
        """Says what is about to be asked, before any of it is."""
        limit, spending = self._question.max_output_characters, self._endpoint.spending
        tokens = estimated_tokens([capped(pair, limit)[0] for pair in pairs])
        money = "no price is given"
        if spending.is_paid:
            usd = spending.usd(tokens, len(pairs) * self._question.max_tokens)
            money = f"about {usd:.2f} USD, {_cap(spending.ledger)}"
        logger.info(
            "judge %s: %d calls not in the cache to %s at %s, about %d tokens, %s",
            *(self.judge_id, len(pairs), self._question.model, self._endpoint.address),
            *(tokens, money),
        )


def _cap(ledger: Ledger | None) -> str:
    if ledger is None:
        return "without max_usd"
    return (
        f"max_usd {ledger.max_usd:g}, of which {ledger.committed_usd():.4f} is spent or promised "
        f"already ({ledger.path})"
    )
