"""Control: the answers of a run, each given to another instruction.

A judge that lets these win rewards form: they are well-formed answers to other questions.
"""

import json
import random
from collections import Counter
from pathlib import Path

from implicit_tuning.artifact import building
from implicit_tuning.reading import read_rows


def shuffle_outputs(outputs: Path, destination: Path, generator: str, seed: int) -> None:
    """Write the outputs again, each instruction with the answer to another one.

    Args:
        outputs: outputs.jsonl of a generation.
        destination: folder for the new outputs.jsonl.
        generator: name under which the new outputs are judged.
        seed: decides the order.

    Raises:
        ValueError: the outputs are too few or too much alike.
    """
    rows = list(read_rows(outputs))
    givers = other_outputs([row["output"] for row in rows], seed)
    with (destination / "outputs.jsonl").open("w", encoding="utf-8") as file:
        for row, giver in zip(rows, givers, strict=True):
            answer = {key: rows[giver][key] for key in ("output", "n_tokens", "finish")}
            line = {**row, **answer, "generator": generator}
            file.write(json.dumps(line, sort_keys=True, ensure_ascii=False) + "\n")


def other_outputs(texts: list[str], seed: int) -> list[int]:
    """For each position another one to take the text of, each once, never an equal text.

    Equal texts stand together in a random order of the texts, and each position takes the one half
    the list away.

    Raises:
        ValueError: more than half of the texts are equal, or there are fewer than two.
    """
    distinct = sorted(set(texts))
    random.Random(seed).shuffle(distinct)
    rank = {text: place for place, text in enumerate(distinct)}
    order = sorted(range(len(texts)), key=lambda position: rank[texts[position]])
    half = len(texts) // 2
    if len(texts) < 2 or max(Counter(texts).values()) > half:
        raise ValueError(
            f"{len(texts)} outputs, of which {len(distinct)} differ, cannot be given to other "
            "instructions without an equal one staying in place: a control needs more variety"
        )
    givers = dict(zip(order, order[half:] + order[:half], strict=True))
    return [givers[position] for position in range(len(texts))]


if __name__ == "__main__":
    with building(snakemake.params.node, snakemake.log[0]) as job:  # noqa: F821
        shuffle_outputs(job.read("outputs", "outputs.jsonl"), job.data, **job.settings)
