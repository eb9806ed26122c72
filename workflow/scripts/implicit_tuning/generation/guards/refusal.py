"""Guard: off-domain refusal. An instruction that is far from the task's own is not answered.

How near one is, is measured as for the tables of similarity: the mean cosine with the task's training
instructions, under the config's embedding. It needs no model: the run's answers are there.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from implicit_tuning.analysis.embeddings import make_embedder
from implicit_tuning.analysis.similarity import NEAR_QUANTILE, mean_similarity, similarity_among
from implicit_tuning.data.reading import read_rows
from implicit_tuning.generation.guards.replacing import write_refusing
from implicit_tuning.nodes.job import Job


@dataclass(frozen=True)
class RefusalReport:
    """Counts over the answers, and the similarity from which on an instruction is answered."""

    embedding: str
    threshold: float
    n: int
    n_refused: int


def answer(job: Job) -> dict[str, Any]:
    """Refuse as the node's settings say; only a model among the embeddings has a folder."""
    guard = job.settings["guard"]
    report = refuse_far(
        outputs=job.read("outputs", "outputs.jsonl"),
        task_rows=job.read("task_rows", "rows.jsonl"),
        destination=job.data,
        generator=job.settings["generator"],
        threshold=guard["threshold"],
        text=guard["text"],
        embedding=job.settings["embedding"],
        embedding_folder=job.read("embedding") if "embedding" in job.upstream else None,
    )
    return asdict(report)


def refuse_far(
    outputs: Path,
    task_rows: Path,
    destination: Path,
    generator: str,
    threshold: float | Literal["near"],
    text: str,
    embedding: Mapping,
    embedding_folder: Path | None,
) -> RefusalReport:
    """Write the outputs again, with a refusal wherever the instruction is far from the task.

    An instruction is far if its mean cosine with the task's instructions is below `threshold`.
    "near" is as close as these are to each other, but for their most distant 5 %.

    Raises:
        ValueError: the task has a single instruction, or the embedder cannot be made.
    """
    answers = list(read_rows(outputs))
    messages = [message for row in read_rows(task_rows) for message in row["messages"]]
    instructions, responses = (
        [message["content"].strip() for message in messages if message["role"] == role]
        for role in ("user", "assistant")
    )
    embedder = make_embedder(embedding, embedding_folder, [*instructions, *responses])
    training = embedder.embed(instructions)
    if threshold == "near":
        threshold = float(np.quantile(similarity_among(training), NEAR_QUANTILE))
    asked = embedder.embed([answer["instruction"] for answer in answers])
    far = [bool(nearness < threshold) for nearness in mean_similarity(asked, training)]
    n_refused = write_refusing(answers, far, text, generator, destination)
    return RefusalReport(embedder.description, threshold, len(answers), n_refused)
