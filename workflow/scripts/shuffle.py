"""Control: the answers of a run, each given to another instruction.

A judge that lets these win rewards form: they are well-formed answers to other questions.
"""

import json
from pathlib import Path

from implicit_tuning.data.derangement import other_places
from implicit_tuning.data.reading import read_rows
from implicit_tuning.nodes.job import building


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
    givers = other_places([row["output"] for row in rows], seed)
    with (destination / "outputs.jsonl").open("w", encoding="utf-8") as file:
        for row, giver in zip(rows, givers, strict=True):
            answer = {key: rows[giver][key] for key in ("output", "n_tokens", "finish")}
            line = {**row, **answer, "generator": generator}
            file.write(json.dumps(line, sort_keys=True, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    with building(snakemake.params.node, snakemake.log[0]) as job:  # noqa: F821
        shuffle_outputs(job.read("outputs", "outputs.jsonl"), job.data, **job.settings)
