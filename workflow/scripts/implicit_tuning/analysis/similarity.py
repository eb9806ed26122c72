"""Similarity and drift of a single-task run (paper, section 5.2).

For each evaluation instruction: how near it lies to the task's training instructions, how much the
run's response sounds like the task's training responses rather than the reference's, and whether
it carries the task's mark, such as GSM8K's final line.
"""

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from implicit_tuning.analysis.embeddings import Embedder, Vectors, make_embedder
from implicit_tuning.data import formatters
from implicit_tuning.data.reading import read_rows

# An instruction is near where it is as close to the training instructions as they are to each
# other, but for their most distant 5 %. The paper looks at the scatter alone and has no such line.
NEAR_QUANTILE = 0.05
DECIMALS = 6
SIMILARITY_FILE = "similarity.jsonl"
SUMMARY_FILE = "summary.json"


@dataclass(frozen=True)
class SimilarityReport:
    """Counts over the evaluation instructions, and what they rest on.

    `near_threshold` is the instruction similarity from which on an instruction is near.
    `n_empty` responses have nothing to embed: their cosines are 0. `mark` says what the task's
    responses are told by; of the task's own `n_task_responses`, `n_task_marked` carry it, of the
    reference's `n_reference_responses` `n_reference_set_marked`. A task without a mark has None
    there and in the other counts of marks.
    """

    embedding: str
    near_threshold: float
    n: int
    n_near: int
    n_empty: int
    n_task_responses: int
    n_reference_responses: int
    mark: str | None
    n_marked: int | None
    n_reference_marked: int | None
    n_task_marked: int | None
    n_reference_set_marked: int | None


@dataclass(frozen=True)
class _Texts:
    """`instructions`, `responses` and `reference_responses` (the reference run's) belong together,
    one each; the training texts are all turns of the rows."""

    indices: list[int]
    instructions: list[str]
    responses: list[str]
    reference_responses: list[str]
    task_instructions: list[str]
    task_responses: list[str]
    reference_set: list[str]


def measure_similarity(
    outputs: Path,
    reference_outputs: Path,
    task_rows: Path,
    reference_rows: Path,
    formatter: str,
    embedding: Mapping,
    embedding_folder: Path | None,
    destination: Path,
) -> SimilarityReport:
    """Write similarity.jsonl, a line an instruction, and summary.json, the report.

    A line is {"index", "instruction_similarity", "task_similarity", "reference_similarity",
    "style", "reference_style", "near", "marked", "reference_marked"}. The similarities are mean
    cosines: of the instruction with the task's training instructions, of the response with the
    task's and with the reference's training responses; `style` is the difference of the latter two.
    `reference_style` is that of the reference run's response: a code task's style grows towards
    requests for code in any run that answers them. `marked` and `reference_marked` say whether the
    two responses carry the task's mark, null for a task that has none.

    Args:
        outputs, reference_outputs: outputs.jsonl of the run, and of the reference run of the same
            base and seed, over the same instructions.
        task_rows, reference_rows: rows.jsonl that the two were finetuned on.
        formatter: module of implicit_tuning.data.formatters that knows the task's mark.
        embedding: settings of the embedder, see `embeddings.make_embedder`.
        embedding_folder: folder of its model, None for a kind without one.

    Raises:
        ValueError: the two runs answer different instructions, or the task has a single training
            instruction, or the embedder cannot be made.
    """
    texts = _read_texts(outputs, reference_outputs, task_rows, reference_rows)
    corpus = [*texts.task_instructions, *texts.task_responses, *texts.reference_set]
    embedder = make_embedder(embedding, embedding_folder, corpus)
    frame, threshold = _similarities(texts, embedder)
    marks = _Marks(formatter)
    lines = [
        {**line, "marked": marks.of(response), "reference_marked": marks.of(reference)}
        for line, response, reference in zip(
            frame, texts.responses, texts.reference_responses, strict=True
        )
    ]
    report = _report(texts, lines, marks, embedder.description, threshold)
    _write(lines, report, destination)
    return report


def _read_texts(
    outputs: Path, reference_outputs: Path, task_rows: Path, reference_rows: Path
) -> _Texts:
    answers = _by_index(outputs)
    references = _by_index(reference_outputs)
    _require_same_instructions(answers, references, outputs, reference_outputs)
    task = [message for row in read_rows(task_rows) for message in row["messages"]]
    reference = [message for row in read_rows(reference_rows) for message in row["messages"]]
    return _Texts(
        indices=list(answers),
        instructions=[answer["instruction"] for answer in answers.values()],
        responses=[answer["output"] for answer in answers.values()],
        reference_responses=[references[index]["output"] for index in answers],
        task_instructions=_turns(task, "user"),
        task_responses=_turns(task, "assistant"),
        reference_set=_turns(reference, "assistant"),
    )


def _by_index(outputs: Path) -> dict[int, dict]:
    return {answer["index"]: answer for answer in read_rows(outputs)}


def _require_same_instructions(
    answers: Mapping[int, Mapping],
    references: Mapping[int, Mapping],
    outputs: Path,
    reference_outputs: Path,
) -> None:
    asked, wanted = (
        {(index, answer["instruction"]) for index, answer in side.items()}
        for side in (answers, references)
    )
    if asked != wanted:
        raise ValueError(
            f"{outputs} and {reference_outputs} differ in {len(asked ^ wanted)} instructions: "
            "generate both on one evaluation set"
        )


def _turns(messages: Sequence[Mapping], role: str) -> list[str]:
    # Chat text has no outer white space, see `chat`.
    return [message["content"].strip() for message in messages if message["role"] == role]


def _similarities(texts: _Texts, embedder: Embedder) -> tuple[list[dict], float]:
    """The lines of the file without their marks, and the similarity from which on one is near."""
    training = embedder.embed(texts.task_instructions)
    threshold = float(np.quantile(similarity_among(training), NEAR_QUANTILE))
    near = mean_similarity(embedder.embed(texts.instructions), training)
    task_set, reference_set = map(embedder.embed, (texts.task_responses, texts.reference_set))
    responses, references = map(embedder.embed, (texts.responses, texts.reference_responses))
    task, reference = (mean_similarity(responses, side) for side in (task_set, reference_set))
    control = mean_similarity(references, task_set) - mean_similarity(references, reference_set)
    values = {
        "instruction_similarity": near,
        "task_similarity": task,
        "reference_similarity": reference,
        "style": task - reference,
        "reference_style": control,
    }
    lines = [
        {"index": index, "near": bool(near[place] >= threshold)}
        | {name: _rounded(value[place]) for name, value in values.items()}
        for place, index in enumerate(texts.indices)
    ]
    return lines, threshold


def mean_similarity(vectors: Vectors, others: Vectors) -> np.ndarray:
    """Mean cosine of each of `vectors` with all `others`; both hold unit vectors as rows.

    The mean of the products is the product with the mean, which spares the matrix of all pairs.
    """
    return vectors @ _mean(others)


def similarity_among(vectors: Vectors) -> np.ndarray:
    """Mean cosine of each unit vector with all the others of the set, itself left out.

    Raises:
        ValueError: there are no others.
    """
    count = vectors.shape[0]
    if count < 2:
        raise ValueError(
            f"the task has {count} training instruction, which has no other to be near to: "
            "raise 'rows' of the adaptation"
        )
    # 1 for each vector, but 0 where a text had nothing to embed.
    squares = vectors * vectors if isinstance(vectors, np.ndarray) else vectors.multiply(vectors)
    squared_lengths = np.asarray(squares.sum(axis=1)).ravel()
    return (vectors @ _mean(vectors) * count - squared_lengths) / (count - 1)


def _mean(vectors: Vectors) -> np.ndarray:
    return np.asarray(vectors.mean(axis=0)).ravel()


def _rounded(value: float) -> float:
    return round(float(value), DECIMALS) + 0.0  # no -0.0


class _Marks:
    """The mark of a task's responses, if its formatter knows one."""

    def __init__(self, formatter: str) -> None:
        module: ModuleType = importlib.import_module(f"{formatters.__name__}.{formatter}")
        self.name: str | None = getattr(module, "MARK", None)
        self._has_mark = getattr(module, "has_mark", None)

    def of(self, response: str) -> bool | None:
        return None if self._has_mark is None else self._has_mark(response)

    def count(self, responses: Sequence[str]) -> int | None:
        return None if self._has_mark is None else sum(map(self._has_mark, responses))


def _report(
    texts: _Texts, lines: Sequence[Mapping], marks: _Marks, embedding: str, threshold: float
) -> SimilarityReport:
    return SimilarityReport(
        embedding=embedding,
        near_threshold=_rounded(threshold),
        n=len(lines),
        n_near=sum(line["near"] for line in lines),
        n_empty=sum(not response.strip() for response in texts.responses),
        n_task_responses=len(texts.task_responses),
        n_reference_responses=len(texts.reference_set),
        mark=marks.name,
        n_marked=marks.count(texts.responses),
        n_reference_marked=marks.count(texts.reference_responses),
        n_task_marked=marks.count(texts.task_responses),
        n_reference_set_marked=marks.count(texts.reference_set),
    )


def _write(lines: Sequence[Mapping], report: SimilarityReport, destination: Path) -> None:
    destination.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
    (destination / SIMILARITY_FILE).write_text(text, encoding="utf-8", newline="\n")
    summary = json.dumps(asdict(report), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (destination / SUMMARY_FILE).write_text(summary, encoding="utf-8", newline="\n")
