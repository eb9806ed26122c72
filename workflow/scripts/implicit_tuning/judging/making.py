"""From a judge's settings to the judge, importing the chosen one alone: only some need torch."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from implicit_tuning.judging.judge import Judge, Needs


def make_judge(settings: Mapping[str, Any], runtime: Mapping[str, Any], needs: Needs) -> Judge:
    """Returns the judge of `settings["kind"]`, as that kind's module makes it.

    Args:
        settings: `kinds.identity_settings` of its config entry.
        runtime: `kinds.runtime_settings` of it.
        needs: where to find what its kind needs.
    """
    module = import_module(f"implicit_tuning.judging.{settings['kind']}")
    return module.make(settings, runtime, needs)
