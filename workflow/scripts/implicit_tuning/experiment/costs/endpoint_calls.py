"""Calls of endpoints that a plan will make, and what they cost where the config gives prices."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from implicit_tuning.experiment.costs.workload import Workload
from implicit_tuning.nodes.node import Node, NodePaths
from implicit_tuning.remote.spending import PROMPT_TOKENS, TOKENS_A_CHARACTER_OF_OUTPUT, Spending

ENDPOINT = "openai"  # the kind of judge and of rewriter


@dataclass
class Calls:
    """Calls of one endpoint, without those that have to be repeated.

    Attributes:
        who: key of the judge or rewriter in the config.
        calls: those whose answer is not kept from before.
        kept: those whose answer is.
        usd: their price; None where the config gives no prices.
        most_usd: their price if every answer is as long as it may be.
        max_usd: the config's cap; None for none.
    """

    who: str
    calls: float = 0.0
    kept: float = 0.0
    usd: float | None = None
    most_usd: float | None = None
    max_usd: float | None = None


@dataclass(frozen=True)
class Asking:
    """What one node asks: tokens of a question as expected and at most, and of its reply."""

    count: float
    question: float
    longest_question: float
    reply: float


def calls_of(waiting: Iterable[Node], workload: Workload, paths: NodePaths) -> list[Calls]:
    """The calls that the nodes which wait will make, summed by endpoint."""
    found: dict[str, Calls] = {}
    files: set[Path] = set()
    for node in waiting:
        who = endpoint_of(node)
        file = paths.cache(node)
        # Two ways to format a data set share their rewrites.
        if who is not None and file is not None and file not in files:
            files.add(file)
            asking = (_judging if node.stage == "judge" else _rewriting)(node, workload)
            _add(found.setdefault(who, Calls(who)), asking, node, file)
    return list(found.values())


def endpoint_of(node: Node) -> str | None:
    """Key of the judge or rewriter behind an endpoint that a node asks; None for none."""
    if node.stage == "judge" and node.settings["judge"]["kind"] == ENDPOINT:
        return f"judges.{node.level('judge')}"
    if "rephrase" in node.settings and node.settings["rephrase"]["kind"] == ENDPOINT:
        return f"rewriters.{node.level('variant').rpartition('-rephrased-by-')[2]}"
    return None


def _judging(node: Node, workload: Workload) -> Asking:
    judge, sizes = node.settings["judge"], workload.sizes
    cut = 2 * judge["max_output_characters"] * TOKENS_A_CHARACTER_OF_OUTPUT
    prompt, answers = workload.question_tokens(node, sizes.answer_tokens)
    _, longest = workload.question_tokens(node, sizes.longest_answer)
    around = PROMPT_TOKENS + prompt
    return Asking(
        count=workload.pairs(node),
        question=around + min(cut, answers),
        longest_question=around + min(cut, longest),
        reply=judge["max_tokens"],
    )


def _rewriting(node: Node, workload: Workload) -> Asking:
    row = workload.sizes.row_tokens(node)
    return Asking(
        count=workload.rewrites(node),
        question=row,
        longest_question=row,
        reply=row,
    )


def _add(calls: Calls, asking: Asking, node: Node, file: Path) -> None:
    answers = file.read_bytes().count(b"\n") if file.is_file() else 0  # one a line
    kept = min(asking.count, answers)
    left = asking.count - kept
    calls.calls += left
    calls.kept += kept
    calls.max_usd = node.runtime["max_usd"]
    prices = [node.runtime[f"usd_per_million_{side}_tokens"] for side in ("input", "output")]
    if None not in prices:
        price = Spending(None, *prices).usd
        calls.usd = (calls.usd or 0.0) + left * price(asking.question, asking.reply)
        most = price(asking.longest_question, asking.reply)
        calls.most_usd = (calls.most_usd or 0.0) + left * most
