"""From a judge's settings to the judge, importing the chosen one alone: only some need torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from implicit_tuning.digests import source_sha256
from implicit_tuning.judging.judge import Judge

if TYPE_CHECKING:
    from implicit_tuning.judging.endpoint import Endpoint


@dataclass(frozen=True)
class Needs:
    """What some kinds need beside their settings, each asked for by those alone.

    Attributes:
        truths: gives the ground truth of each instruction.
        model: gives the folder of the model that judges.
        chat: opening tags of the experiment's chat format, by role.
        spending: folder for ledgers of what paid judges cost.
    """

    truths: Callable[[], Mapping[str, Mapping]]
    model: Callable[[], Path]
    chat: Mapping[str, str]
    spending: Path


def make_judge(
    settings: Mapping[str, object], runtime: Mapping[str, object], needs: Needs
) -> Judge:
    """Returns the judge of `settings["kind"]`.

    Args:
        settings: `kinds.identity_settings` of its config entry.
        runtime: `kinds.runtime_settings` of it.
        needs: where to find what its kind needs.
    """
    return _MAKERS[settings["kind"]](settings, runtime, needs)


def _oracle(settings: Mapping, runtime: Mapping, needs: Needs) -> Judge:
    from implicit_tuning.judging.oracle import OracleJudge

    return OracleJudge(needs.truths())


def _mean_logprob(settings: Mapping, runtime: Mapping, needs: Needs) -> Judge:
    from implicit_tuning.chat import ChatFormat
    from implicit_tuning.judging.mean_logprob import MeanLogprobJudge

    base = needs.model()
    chat_format = ChatFormat(**needs.chat)
    return MeanLogprobJudge(base, source_sha256(base), chat_format, settings["batch_size"])


def _hf_logits(settings: Mapping, runtime: Mapping, needs: Needs) -> Judge:
    from implicit_tuning.judging.hf_logits import HfLogitsJudge

    folder = needs.model()
    keys = ("batch_size", "dtype", "device", "max_output_characters")
    return HfLogitsJudge(folder, source_sha256(folder), **{key: settings[key] for key in keys})


def _openai(settings: Mapping, runtime: Mapping, needs: Needs) -> Judge:
    from implicit_tuning.judging.openai import OpenAIJudge, Question

    asked = ("model", "temperature", "max_tokens", "logprobs", "top_logprobs")
    question = Question(
        max_output_characters=settings["max_output_characters"],
        **{key: settings[key] for key in asked},
    )
    endpoint = make_endpoint(settings["model"], runtime, needs.spending, question.judge_id)
    return OpenAIJudge(question, endpoint, runtime["concurrency"])


def make_endpoint(
    model: str, runtime: Mapping[str, object], spending: Path, asker: str
) -> "Endpoint":
    """Returns the endpoint of a judge or rewriter of kind `openai`.

    Args:
        model: pinned name.
        runtime: `kinds.runtime_settings` of its config entry.
        spending: folder for the ledger of what it costs, kept where `max_usd` caps that.
        asker: identity of the judge or rewriter, which names the ledger.
    """
    from implicit_tuning.judging.endpoint import Endpoint
    from implicit_tuning.judging.ledger import Ledger
    from implicit_tuning.judging.spending import Spending

    ledger = None
    if runtime["max_usd"] is not None:
        ledger = Ledger(spending / f"{asker}.json", runtime["max_usd"])
    prices = ("usd_per_million_input_tokens", "usd_per_million_output_tokens")
    address = ("base_url", "api_key_env", "requests_per_minute", "timeout_s", "max_retries")
    return Endpoint(
        model=model,
        spending=Spending(ledger, **{key: runtime[key] for key in prices}),
        **{key: runtime[key] for key in address},
    )


_MAKERS: Mapping[str, Callable[[Mapping, Mapping, Needs], Judge]] = {
    "oracle": _oracle,
    "mean_logprob": _mean_logprob,
    "hf_logits": _hf_logits,
    "openai": _openai,
}
