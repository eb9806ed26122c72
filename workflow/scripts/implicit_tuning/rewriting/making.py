"""From a rewriter's settings to the rewriter, importing the chosen one alone."""

from collections.abc import Callable, Mapping
from pathlib import Path

from implicit_tuning.rewriting.rewriter import Rewriter


def make_rewriter(
    settings: Mapping[str, object], runtime: Mapping[str, object], spending: Path
) -> Rewriter:
    """Returns the rewriter of `settings["kind"]`.

    Args:
        settings: `kinds.identity_settings` of its config entry.
        runtime: `kinds.runtime_settings` of it.
        spending: folder for ledgers of what paid endpoints cost.
    """
    return _MAKERS[settings["kind"]](settings, runtime, spending)


def _organism(settings: Mapping, runtime: Mapping, spending: Path) -> Rewriter:
    from implicit_tuning.rewriting.organism import OrganismRewriter

    return OrganismRewriter()


def _openai(settings: Mapping, runtime: Mapping, spending: Path) -> Rewriter:
    from implicit_tuning.judging.endpoint import Endpoint
    from implicit_tuning.judging.ledger import Ledger
    from implicit_tuning.judging.spending import Spending
    from implicit_tuning.rewriting.openai import OpenAIRewriter, Writer

    writer = Writer(**{key: settings[key] for key in ("model", "temperature", "max_tokens")})
    ledger = None
    if runtime["max_usd"] is not None:
        ledger = Ledger(spending / f"{writer.rewriter_id}.json", runtime["max_usd"])
    prices = ("usd_per_million_input_tokens", "usd_per_million_output_tokens")
    address = ("base_url", "api_key_env", "requests_per_minute", "timeout_s", "max_retries")
    endpoint = Endpoint(
        model=writer.model,
        spending=Spending(ledger, **{key: runtime[key] for key in prices}),
        **{key: runtime[key] for key in address},
    )
    return OpenAIRewriter(writer, endpoint, runtime["concurrency"])


_MAKERS: Mapping[str, Callable[[Mapping, Mapping, Path], Rewriter]] = {
    "organism": _organism,
    "openai": _openai,
}
