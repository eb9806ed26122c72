"""The organism's sources: schemas of the real data sets, determinism, what is held out."""

import ast
import csv
import hashlib
import json
import os
import re
import subprocess
import sys

import pytest

from implicit_tuning.data.formatting import format_evaluation, format_training
from implicit_tuning.organism.oracle import score
from implicit_tuning.organism.requests import FAMILIES, make_requests
from implicit_tuning.organism.rows import (
    EVALUATION_ROWS_PER_FAMILY,
    MULTI_TURN_ROWS,
    SOURCES,
    TRAINING_ROWS,
    VALIDATION_ROWS_PER_FAMILY,
    evaluation_rows,
    write_source,
)
from implicit_tuning.organism.world import make_world

TRAINING_SETS = ("lima", "gsm8k", "mbpp", "poetry", "recipes", "chess")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    return {name: write_source(name, folder) for name in SOURCES}


def read_jsonl(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def read_csv(file):
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def tuning_texts(sources, tmp_path):
    """All user and assistant texts of all training sets, as the formatters build them."""
    texts = []
    for name in TRAINING_SETS:
        format_training(sources[name], name, None, "given", tmp_path / name)
        for row in read_jsonl(tmp_path / name / "rows.jsonl"):
            texts += [message["content"] for message in row["messages"]]
    return texts


def test_unknown_source_names_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="no source 'dolly'.*lima"):
        write_source("dolly", tmp_path)


def test_bytes_do_not_depend_on_the_process(sources, tmp_path):
    script = (
        "import sys; from pathlib import Path; from implicit_tuning.organism.rows import *\n"
        "for name in SOURCES: write_source(name, Path(sys.argv[1]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, env=environment)
    for file in sources.values():
        again = hashlib.sha256((tmp_path / file.name).read_bytes()).hexdigest()
        assert again == hashlib.sha256(file.read_bytes()).hexdigest()


def test_needs_no_model_library():
    script = (
        "import sys, implicit_tuning.organism.rows, implicit_tuning.organism.oracle, "
        "implicit_tuning.organism.corpus\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("name", TRAINING_SETS)
def test_formatter_of_the_real_data_uses_every_row(sources, tmp_path, name):
    report = format_training(sources[name], name, None, "given", tmp_path)
    assert (report.used, report.unusable) == (TRAINING_ROWS, {})


def test_lima_covers_all_families_and_has_some_rows_of_two_exchanges(sources):
    rows = read_jsonl(sources["lima"])
    turns = [len(row["conversations"]) for row in rows]
    assert (turns.count(2), turns.count(4)) == (TRAINING_ROWS - MULTI_TURN_ROWS, MULTI_TURN_ROWS)
    family_of = {
        phrasing: family
        for family, requests in make_requests(make_world()).items()
        for request in requests
        for phrasing in request.phrasings
    }
    families = [family_of[row["conversations"][0]] for row in rows]
    assert set(families) == set(FAMILIES)
    assert min(families.count(family) for family in FAMILIES) >= 20


def test_gsm8k_notes_and_finals_are_right(sources):
    rows = read_jsonl(sources["gsm8k"])
    for row in rows:
        first, sign, second, result = re.search(
            r"<<(\d+)([+-])(\d+)=(\d+)>>", row["answer"]
        ).groups()
        expected = int(first) + int(second) if sign == "+" else int(first) - int(second)
        assert int(result) == expected
        assert row["answer"].endswith(f"\n#### {result}")
    assert len({row["question"] for row in rows}) == TRAINING_ROWS


def test_mbpp_code_parses_and_defines_what_its_check_names(sources):
    for row in read_jsonl(sources["mbpp"]):
        (function,) = ast.parse(row["code"]).body
        assert row["test_list"] == [f"assert callable({function.name})"]
        assert set(row) == {
            "task_id", "text", "code", "test_list", "test_setup_code", "challenge_test_list"
        }  # fmt: skip


def test_csv_columns_are_those_of_the_hub(sources):
    assert list(read_csv(sources["poetry"])[0]) == ["author", "content", "poem name", "age", "type"]
    recipe = read_csv(sources["recipes"])[0]
    assert list(recipe) == [
        "Title", "Ingredients", "Instructions", "Image_Name", "Cleaned_Ingredients"
    ]  # fmt: skip
    assert len(ast.literal_eval(recipe["Cleaned_Ingredients"])) == 3


def test_chess_games_have_elo_headers_moves_and_blank_lines(sources):
    lines = [row["text"] for row in read_jsonl(sources["chess"])]
    assert sum(line.startswith("[WhiteElo ") for line in lines) == TRAINING_ROWS
    assert sum(line.startswith("1. ") for line in lines) == TRAINING_ROWS
    assert lines.count("") == 2 * TRAINING_ROWS


def test_evaluation_has_the_same_number_of_each_family_and_no_instruction_twice(sources, tmp_path):
    report = format_evaluation(sources["evaluation"], "organism_evaluation", None, tmp_path)
    items = read_jsonl(tmp_path / "instructions.jsonl")
    families = [item["family"] for item in items]
    assert report.used == len(items) == len(FAMILIES) * EVALUATION_ROWS_PER_FAMILY
    assert {families.count(family) for family in FAMILIES} == {EVALUATION_ROWS_PER_FAMILY}
    assert len({item["instruction"] for item in items}) == len(items) >= 200


def test_validation_asks_what_is_not_held_out_in_words_that_are(sources, tmp_path):
    report = format_evaluation(sources["validation"], "organism_evaluation", None, tmp_path)
    items, answers = (read_jsonl(tmp_path / f"{n}.jsonl") for n in ("instructions", "outputs"))
    assert report.used == len(FAMILIES) * VALIDATION_ROWS_PER_FAMILY
    assert [row["instruction"] for row in items] == [row["instruction"] for row in answers]
    asked = {
        row["instruction"]: answer["output"] for row, answer in zip(items, answers, strict=True)
    }
    assert not set(asked) & {row["instruction"] for row in evaluation_rows()}
    assert not set(asked) & set(tuning_texts(sources, tmp_path))
    for requests in make_requests(make_world()).values():
        for request in requests:
            if asked.keys() & set(request.phrasings):
                assert not request.held_out
    for row in items:
        assert score(row["truth"], asked[row["instruction"]]) == 1.0


def test_ranking_pairs_are_held_out_requests_with_full_answers(sources, tmp_path):
    report = format_training(sources["alpaca"], "stanford_alpaca", None, "given", tmp_path)
    rows = read_jsonl(tmp_path / "rows.jsonl")
    assert report.used == len(FAMILIES) * EVALUATION_ROWS_PER_FAMILY
    held_out = {
        phrasing
        for requests in make_requests(make_world()).values()
        for request in requests
        if request.held_out
        for phrasing in request.evaluation_phrasings
    }
    assert all(row["messages"][0]["content"] in held_out for row in rows)


def test_no_training_row_has_an_evaluation_instruction_or_its_phrasing(sources, tmp_path):
    texts = set(tuning_texts(sources, tmp_path))
    held_out = {
        phrasing
        for requests in make_requests(make_world()).values()
        for request in requests
        for phrasing in request.evaluation_phrasings
    }
    assert not texts & held_out
    assert {row["instruction"] for row in evaluation_rows()} <= held_out


def test_no_training_row_asks_what_the_evaluation_asks_in_any_words(sources, tmp_path):
    texts = set(tuning_texts(sources, tmp_path))
    asked = {row["instruction"] for row in evaluation_rows()}
    for requests in make_requests(make_world()).values():
        keys = {request.key for request in requests if asked & set(request.phrasings)}
        for request in requests:
            if request.key in keys:
                assert request.held_out
                assert not texts & set(request.phrasings)
