"""Answers of a run, some of which a guard replaces by its refusal."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

# What `finish` says of an answer that is the guard's, beside "eos" and "length".
REFUSED = "refused"


def write_refusing(
    answers: Sequence[Mapping],
    refused: Sequence[bool],
    text: str,
    generator: str,
    destination: Path,
) -> int:
    """Write `destination/outputs.jsonl` with `text` in place of the refused answers.

    A refusal has `n_tokens` 0, for no token of it is the model's, and `finish` REFUSED. Returns how
    many were refused.
    """
    refusal = {"output": text, "n_tokens": 0, "finish": REFUSED}
    lines = [
        {**answer, "generator": generator, **(refusal if is_refused else {})}
        for answer, is_refused in zip(answers, refused, strict=True)
    ]
    with (destination / "outputs.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(x, sort_keys=True, ensure_ascii=False) + "\n" for x in lines)
    return sum(refused)
