"""Similarity of a run to its task: the cosines, the near region, the marks, and what is refused."""

import json

import numpy as np
import pytest

from implicit_tuning.analysis.embeddings import make_embedder
from implicit_tuning.analysis.similarity import (
    mean_similarity,
    measure_similarity,
    similarity_among,
)
from implicit_tuning.nodes.digests import source_sha256
from implicit_tuning.nodes.job import Job
from similarity import similarity_node

TASK = [
    (f"If Ann has {n} pens and gets {n} more, how many pens is that?", f"Some pens.\n#### {n + n}")
    for n in range(2, 12)
]
REFERENCE = [
    ("Name a river.", "The river is the Drotrel."),
    ("Who lives here?", "Fapun lives in Hostolmark."),
    ("Describe a lamp.", "A lamp is a light for reading."),
]
QUESTIONS = [
    "If Ann has 3 pens and gets 4 more, how many pens is that?",
    "Name the capital of Batalland.",
    "Say nothing.",
]
ANSWERS = ["That is 7 pens.\n#### 7", "The capital is Fadom.\n#### 5", ""]
OTHER_ANSWERS = ["Ann has 7 pens.", "The capital is Fadom.", "The lamp is here."]


def write_rows(path, pairs):
    roles = ("user", "assistant")
    rows = [[{"role": r, "content": c} for r, c in zip(roles, p, strict=True)] for p in pairs]
    lines = [json.dumps({"messages": row, "source_row": n}) for n, row in enumerate(rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_outputs(path, questions, answers):
    pairs = zip(questions, answers, strict=True)
    rows = [{"index": n, "instruction": q, "output": a} for n, (q, a) in enumerate(pairs)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def measure(tmp_path):
    """Function that measures the answers above, and returns the lines written and the report."""

    def run(formatter="gsm8k", reference_questions=QUESTIONS, task=TASK, folder="data"):
        report = measure_similarity(
            outputs=write_outputs(tmp_path / "outputs.jsonl", QUESTIONS, ANSWERS),
            reference_outputs=write_outputs(
                tmp_path / "references.jsonl", reference_questions, OTHER_ANSWERS
            ),
            task_rows=write_rows(tmp_path / "task.jsonl", task),
            reference_rows=write_rows(tmp_path / "reference.jsonl", REFERENCE),
            formatter=formatter,
            embedding={"kind": "tfidf"},
            embedding_folder=None,
            destination=tmp_path / folder,
        )
        text = (tmp_path / folder / "similarity.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()], report

    return run


def test_each_instruction_has_a_line_with_exactly_its_keys(measure):
    lines, _ = measure()
    assert [line["index"] for line in lines] == [0, 1, 2]
    for line in lines:
        assert list(line) == sorted(
            ["index", "instruction_similarity", "task_similarity", "reference_similarity", "style",
             "reference_style", "near", "marked", "reference_marked"]
        )  # fmt: skip


def test_similarities_are_means_over_all_pairs(measure):
    lines, _ = measure()
    asked, replies = (list(texts) for texts in zip(*TASK, strict=True))
    others = [response for _, response in REFERENCE]
    embedder = make_embedder({"kind": "tfidf"}, None, [*asked, *replies, *others])

    def mean_cosines(texts, training):
        return (embedder.embed(texts) @ embedder.embed(training).T).toarray().mean(axis=1)

    def column(name):
        return pytest.approx([line[name] for line in lines], abs=2e-6)

    assert mean_cosines(QUESTIONS, asked) == column("instruction_similarity")
    assert mean_cosines(ANSWERS, replies) == column("task_similarity")
    assert mean_cosines(ANSWERS, others) == column("reference_similarity")
    style, control = (
        mean_cosines(texts, replies) - mean_cosines(texts, others)
        for texts in (ANSWERS, OTHER_ANSWERS)
    )
    assert style == column("style")
    assert control == column("reference_style")


def test_near_is_what_lies_as_near_as_training_instructions_do(measure):
    lines, report = measure()
    assert [line["near"] for line in lines] == [True, False, False]
    assert lines[1]["instruction_similarity"] < report.near_threshold
    assert report.near_threshold <= lines[0]["instruction_similarity"]


def test_a_vector_is_left_out_of_its_own_mean():
    vectors = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.0, 0.0]])
    expected = [
        np.mean([vectors[i] @ vectors[j] for j in range(4) if j != i]) for i in range(4)
    ]  # fmt: skip
    assert similarity_among(vectors) == pytest.approx(expected)
    assert mean_similarity(vectors, vectors[:2]) == pytest.approx([0.8, 0.8, 0.4, 0.0])


def test_marks_of_both_runs_are_told(measure):
    lines, report = measure()
    assert [line["marked"] for line in lines] == [True, True, False]
    assert [line["reference_marked"] for line in lines] == [False, False, False]
    assert (report.mark, report.n_marked, report.n_reference_marked) == ("ends in `#### n`", 2, 0)
    assert (report.n_task_marked, report.n_task_responses) == (10, 10)
    assert (report.n_reference_set_marked, report.n_reference_responses) == (0, 3)


def test_a_task_without_a_mark_has_none(measure):
    lines, report = measure(formatter="lima")
    assert {(line["marked"], line["reference_marked"]) for line in lines} == {(None, None)}
    assert (report.mark, report.n_marked, report.n_task_marked) == (None, None, None)


def test_an_empty_answer_is_like_nothing_and_counted(measure):
    lines, report = measure()
    assert (report.n, report.n_empty, report.n_near) == (3, 1, 1)
    empty = lines[2]
    assert (empty["task_similarity"], empty["reference_similarity"], empty["style"]) == (0, 0, 0)


def test_report_stands_beside_the_lines_and_bytes_are_equal_each_time(measure, tmp_path):
    _, report = measure()
    measure(folder="again")
    for name in ("similarity.jsonl", "summary.json"):
        first, second = ((tmp_path / folder / name).read_bytes() for folder in ("data", "again"))
        assert first == second
    summary = json.loads((tmp_path / "data" / "summary.json").read_text())
    assert summary["near_threshold"] == report.near_threshold
    assert summary["embedding"] == report.embedding
    assert "TF-IDF" in report.embedding


def test_runs_over_other_instructions_are_refused(measure):
    questions = [*QUESTIONS[:2], "Say something."]
    with pytest.raises(ValueError, match="differ in 2 instructions: generate both on one"):
        measure(reference_questions=questions)


def test_a_single_training_instruction_is_refused(measure):
    with pytest.raises(ValueError, match="1 training instruction, .* raise 'rows'"):
        measure(task=TASK[:1])


def test_script_measures_what_its_job_names(tmp_path):
    files = {
        "outputs": write_outputs(tmp_path / "outputs.jsonl", QUESTIONS, ANSWERS),
        "reference_outputs": write_outputs(tmp_path / "b.jsonl", QUESTIONS, OTHER_ANSWERS),
        "task_rows": write_rows(tmp_path / "rows.jsonl", TASK),
        "reference_rows": write_rows(tmp_path / "c.jsonl", REFERENCE),
    }

    job = Job(
        settings={"formatter": "gsm8k", "embedding": {"kind": "tfidf"}},
        runtime={},
        upstream={
            name: {"source": str(file), "digest": source_sha256(file)}
            for name, file in files.items()
        },
        data=tmp_path / "data",
        partial=tmp_path / "partial",
        spending=tmp_path,
    )
    report = similarity_node(job)
    assert report.n == len((tmp_path / "data" / "similarity.jsonl").read_text().splitlines()) == 3
