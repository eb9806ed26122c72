"""The template and refusal guards: which answers they let through, and what stands in place of others."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from greedy_answers import FORMAT, INSTRUCTIONS, SETTINGS, outputs, run
from guard import guard_node
from guard_jobs import byte_tokenizer, guarded, source, write_byte_base
from implicit_tuning.generation.guards.refusal import refuse_far
from implicit_tuning.generation.guards.template import start_tokens
from implicit_tuning.models.chat import tokenize_conversation, tokenize_prompt
from implicit_tuning.nodes.job import Job
from implicit_tuning.organism.rows import gsm8k_rows, mbpp_rows, task_evaluation_rows
from tiny_models import character_tokenizer

REFUSAL = "I do not answer this."


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_byte_base(tmp_path_factory.mktemp("base"))


# --- template -----------------------------------------------------------------------------------


def test_answers_that_have_the_pattern_stay_and_all_others_are_replaced(base, tmp_path):
    run(base, tmp_path / "plain")
    plain = outputs(tmp_path / "plain")
    letter = plain[0]["output"][-1]
    guard = {"kind": "template", "pattern": re.escape(letter) + r"\Z", "text": REFUSAL}
    facts, written = guarded(base, tmp_path / "a", guard)
    kept = [row["index"] for row in plain if row["output"].endswith(letter)]
    assert 0 < len(kept) < len(plain), "some must stay, some not"
    for before, after in zip(plain, written, strict=True):
        changed = {"output": REFUSAL, "n_tokens": 0, "finish": "refused"}
        expected = {} if before["index"] in kept else changed
        assert after == {**before, "generator": "guarded", **expected}
    assert (facts["n"], facts["n_refused"]) == (len(plain), len(plain) - len(kept))
    assert facts["n_tokens"] == sum(row["n_tokens"] for row in plain), "what the model said"


@torch.inference_mode()
def test_the_model_goes_on_from_the_start_that_it_is_given(base, tmp_path):
    guard = {"kind": "template", "start": "No more", "pattern": "", "text": REFUSAL}
    _, written = guarded(base, tmp_path / "a", guard)
    tokenizer, model = byte_tokenizer(), AutoModelForCausalLM.from_pretrained(base)
    start = tokenizer("No more")["input_ids"]
    assert len(start) == 6, "a merge must be among them"
    for text, row in zip(INSTRUCTIONS, written, strict=True):
        ids = [*tokenize_prompt(text, tokenizer, FORMAT), *start]
        answer = list(start)
        while len(answer) < SETTINGS.max_new_tokens and answer[-1] != tokenizer.eos_token_id:
            answer.append(model(torch.tensor([ids])).logits[0, -1].argmax().item())
            ids.append(answer[-1])
        assert row["output"] == tokenizer.decode(answer, skip_special_tokens=True)
        assert row["output"].startswith("No more")
        assert row["n_tokens"] == len(answer), "the start counts as part of the answer"


def test_a_start_has_the_tokens_that_it_has_in_training():
    for tokenizer in (byte_tokenizer(), character_tokenizer(bos=True)):
        messages = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Yes"}]
        trained = tokenize_conversation(messages, tokenizer, FORMAT, 200)
        ids = [t for t, on in zip(trained.input_ids, trained.loss_mask, strict=True) if on]
        assert start_tokens("Yes", tokenizer, FORMAT) == ids[:-1]  # without EOS


def test_a_start_that_merges_with_the_prompt_is_refused():
    tokenizer = character_tokenizer(merges=(("\n", "N"),))
    with pytest.raises(ValueError, match="guard.start: 'No'.*choose another start"):
        start_tokens("No", tokenizer, FORMAT)


def test_a_start_as_long_as_an_answer_leaves_no_room(base, tmp_path):
    guard = {"kind": "template", "start": "x" * 20, "pattern": "x", "text": REFUSAL}
    with pytest.raises(ValueError, match="leaves no room"):
        guarded(base, tmp_path / "a", guard)
    facts, _ = guarded(base, tmp_path / "b", guard, settings=replace(SETTINGS, max_new_tokens=21))
    assert facts["n_refused"] == 0


# --- refusal ------------------------------------------------------------------------------------

TASK = [f"How many eggs are {a} eggs and {b} eggs?" for a in range(1, 7) for b in range(1, 7)]
ASKED = ["How many eggs are 9 eggs and 2 eggs?", "Write a poem about the sea.", "Who are you?"]


@pytest.fixture
def run_folder(tmp_path):
    """A run's answers, and the rows that it was finetuned on."""
    answers = [
        {"index": i, "instruction": text, "output": f"a{i}", "generator": "gsm8k",
         "n_tokens": 2 + i, "finish": "length" if i == 1 else "eos"}
        for i, text in enumerate(ASKED)
    ]  # fmt: skip
    rows = [
        {
            "messages": [
                {"role": "user", "content": text},
                {"role": "assistant", "content": "It is."},
            ]
        }
        for text in TASK
    ]
    for name, lines in (("outputs", answers), ("rows", rows)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / f"{name}.jsonl").write_text(text)
    return tmp_path


def refuse(folder, threshold):
    (folder / "new").mkdir(exist_ok=True)
    report = refuse_far(
        outputs=folder / "outputs.jsonl",
        task_rows=folder / "rows.jsonl",
        destination=folder / "new",
        generator="guarded",
        threshold=threshold,
        text=REFUSAL,
        embedding={"kind": "tfidf"},
        embedding_folder=None,
    )
    return report, outputs(folder / "new")


def test_far_instructions_are_refused_and_near_ones_answered_as_before(run_folder):
    report, written = refuse(run_folder, "near")
    assert [row["output"] for row in written] == ["a0", REFUSAL, REFUSAL]
    assert [row["finish"] for row in written] == ["eos", "refused", "refused"]
    assert [row["n_tokens"] for row in written] == [2, 0, 0]
    assert {row["generator"] for row in written} == {"guarded"}
    assert [row["instruction"] for row in written] == ASKED
    assert (report.n, report.n_refused) == (3, 2)


def test_near_is_the_line_that_5_percent_of_the_task_itself_lie_below(run_folder):
    from sklearn.feature_extraction.text import TfidfVectorizer

    from implicit_tuning.analysis.embeddings import TOKEN

    report, _ = refuse(run_folder, "near")
    texts = [*TASK, *["It is."] * len(TASK)]
    vectors = TfidfVectorizer(token_pattern=TOKEN, sublinear_tf=True).fit(texts).transform(TASK)
    cosines = (vectors @ vectors.T).toarray()
    others = [(row.sum() - row[place]) / (len(TASK) - 1) for place, row in enumerate(cosines)]
    assert report.threshold == pytest.approx(np.quantile(others, 0.05))
    assert min(others) < report.threshold < max(others)


@pytest.mark.parametrize(("threshold", "refused"), [(-1, 0), (1, 3)])
def test_a_number_is_the_least_cosine_that_is_answered(run_folder, threshold, refused):
    report, _ = refuse(run_folder, threshold)
    assert (report.n_refused, report.threshold) == (refused, threshold)


def test_the_refusal_guard_runs_as_a_job_without_a_model(run_folder):
    (run_folder / "job").mkdir()
    job = Job(
        settings={
            "generator": "guarded",
            "guard": {"kind": "refusal", "threshold": "near", "text": REFUSAL},
            "embedding": {"kind": "tfidf"},
        },
        runtime={},
        upstream={
            "outputs": source(run_folder / "outputs.jsonl"),
            "task_rows": source(run_folder / "rows.jsonl"),
        },
        data=run_folder / "job",
        partial=run_folder,
        spending=run_folder,
    )
    assert guard_node(job)["n_refused"] == 2
    assert outputs(run_folder / "job") == refuse(run_folder, "near")[1]


# --- sets of one task ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "count", "training"), [("math", 64, gsm8k_rows), ("code", 32, mbpp_rows)]
)
def test_a_tasks_set_has_its_held_out_requests(family, count, training):
    rows = list(task_evaluation_rows(family))
    asked = {row["instruction"] for row in rows}
    assert len(asked) == len(rows) == count
    assert {row["family"] for row in rows} == {family}
    assert asked.isdisjoint(row.get("question") or row["text"] for row in training())
    assert all(row["truth"]["request"] == row["instruction"] for row in rows)
    assert rows == list(task_evaluation_rows(family)), "the same in every process"
