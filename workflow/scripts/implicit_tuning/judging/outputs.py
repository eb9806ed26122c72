"""The two sides of a comparison, checked before a judge is asked.

AlpacaEval joins them on the instruction: a repeated or differing one would silently multiply or
drop pairs, and a null output would be judged as the text "None". A row's `index` is not compared.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

REFUSALS_NAMED = 3


class InvalidOutputs(ValueError):
    """The two sets of outputs cannot be compared as they are; the message names what differs."""


def check_outputs(outputs: Sequence[Mapping], references: Sequence[Mapping]) -> None:
    """Raises InvalidOutputs unless both sides answer the same instructions, once, in one order."""
    for side, rows in (("model", outputs), ("reference", references)):
        _check_rows(side, rows)
    ours = [row["instruction"] for row in outputs]
    theirs = [row["instruction"] for row in references]
    if set(ours) != set(theirs):
        raise InvalidOutputs(
            "model and reference outputs answer different instructions: "
            f"only the model {_named(set(ours) - set(theirs))}, "
            f"only the reference {_named(set(theirs) - set(ours))}; generate both from one set"
        )
    for position, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        if mine != other:
            raise InvalidOutputs(
                "model and reference outputs are in different orders, first at row "
                f"{position}: {mine!r} and {other!r}; keep the evaluation set's order"
            )


def _check_rows(side: str, rows: Sequence[Mapping]) -> None:
    if not rows:
        raise InvalidOutputs(f"there are no {side} outputs to judge")
    for position, row in enumerate(rows):
        for field in ("instruction", "output", "generator"):
            if not isinstance(row.get(field), str):
                raise InvalidOutputs(
                    f"{side} row {position}: `{field}` is {row.get(field)!r}, not a text "
                    "(an empty output must be the empty string)"
                )
    generators = {row["generator"] for row in rows}
    if len(generators) > 1:
        raise InvalidOutputs(f"{side} outputs come from several generators: {sorted(generators)}")
    counts = Counter(row["instruction"] for row in rows)
    repeated = {instruction for instruction, count in counts.items() if count > 1}
    if repeated:
        raise InvalidOutputs(f"{side} outputs repeat instructions: {_named(repeated)}")


def _named(instructions: set[str]) -> str:
    """Returns their number and the first few of them, for a message."""
    if not instructions:
        return "0"
    shown = [repr(text) for text in sorted(instructions)[:REFUSALS_NAMED]]
    more = ["..."] if len(instructions) > REFUSALS_NAMED else []
    return f"{len(instructions)} ({', '.join(shown + more)})"
