"""Control: the answers of a run, each given to another instruction.

A judge that lets these win rewards form: they are well-formed answers to other questions.
"""

import json
import random
from pathlib import Path

from implicit_tuning.artifact import building


def shuffle_outputs(outputs: Path, destination: Path, generator: str, seed: int) -> None:
    """Write the outputs again with the answers moved round, none left in its place.

    Args:
        outputs: outputs.jsonl of a generation.
        destination: folder for the new outputs.jsonl.
        generator: name under which the new outputs are judged.
        seed: decides the order.

    Raises:
        ValueError: fewer than two outputs cannot be moved.
    """
    rows = [json.loads(line) for line in outputs.read_text(encoding="utf-8").splitlines()]
    if len(rows) < 2:
        raise ValueError(f"{outputs} has {len(rows)} outputs; a shuffled control needs two")
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    moved = dict(zip(order, order[1:] + order[:1], strict=True))
    with (destination / "outputs.jsonl").open("w", encoding="utf-8") as file:
        for position, row in enumerate(rows):
            other = rows[moved[position]]
            answer = {key: other[key] for key in ("output", "n_tokens", "finish")}
            line = {**row, **answer, "generator": generator}
            file.write(json.dumps(line, sort_keys=True, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    with building(snakemake.params.node, snakemake.log[0]) as job:  # noqa: F821
        shuffle_outputs(job.read("outputs", "outputs.jsonl"), job.data, **job.settings)
