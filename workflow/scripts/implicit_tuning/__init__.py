"""Instruction following without instruction tuning: the parts of the workflow, as a library.

    from implicit_tuning import RuleAdapter, rank_responses

`docs/library.md` is the guide. Each name is fetched when it is first asked for: importing the
package loads neither torch nor transformers nor pandas.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from implicit_tuning.exports import HOMES

if TYPE_CHECKING:
    from implicit_tuning.analysis.api import Ranking, rank_responses
    from implicit_tuning.judging.alpaca import Comparison
    from implicit_tuning.judging.api import compare
    from implicit_tuning.judging.judge import Judge, JudgingFailed, Pair, Verdict
    from implicit_tuning.judging.judges.oracle import OracleJudge
    from implicit_tuning.judging.outputs import InvalidOutputs
    from implicit_tuning.models.api import format_chat, mask
    from implicit_tuning.models.chat import ChatFormat, TokenizedConversation
    from implicit_tuning.models.rule_adapter import RuleAdapter, RuleSettings
    from implicit_tuning.nodes.api import fingerprint

__all__ = [
    "ChatFormat",
    "Comparison",
    "InvalidOutputs",
    "Judge",
    "JudgingFailed",
    "OracleJudge",
    "Pair",
    "Ranking",
    "RuleAdapter",
    "RuleSettings",
    "TokenizedConversation",
    "Verdict",
    "compare",
    "fingerprint",
    "format_chat",
    "mask",
    "rank_responses",
]


def __getattr__(name: str) -> object:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
