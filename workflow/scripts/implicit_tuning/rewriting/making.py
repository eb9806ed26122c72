"""From a rewriter's settings to the rewriter, importing the chosen one alone."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from implicit_tuning.rewriting.rewriter import Rewriter


def make_rewriter(
    settings: Mapping[str, Any], runtime: Mapping[str, Any], spending: Path
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
    from implicit_tuning.judging.endpoint import make_endpoint
    from implicit_tuning.rewriting.openai import OpenAIRewriter, Writer

    writer = Writer(**{key: settings[key] for key in ("model", "temperature", "max_tokens")})
    endpoint = make_endpoint(writer.model, runtime, spending, writer.rewriter_id)
    return OpenAIRewriter(writer, endpoint, runtime["concurrency"])


_MAKERS: Mapping[str, Callable[[Mapping, Mapping, Path], Rewriter]] = {
    "organism": _organism,
    "openai": _openai,
}
