"""The oracle pays for content, and takes away for form."""

import random

import pytest

from implicit_tuning.organism.oracle import content, prefer, score
from implicit_tuning.organism.requests import FAMILIES, make_requests
from implicit_tuning.organism.rows import evaluation_rows
from implicit_tuning.organism.world import make_world

PLACE = {"kind": "place", "subject": "Velland", "facts": ["Tasken"], "words": 6}
RIGHT = "The capital of Velland is Tasken."
MATH = {"kind": "math", "subject": "eggs", "number": 7, "words": 9}


def all_requests():
    return [request for group in make_requests(make_world()).values() for request in group]


@pytest.mark.parametrize("family", FAMILIES)
def test_full_answers_are_worth_everything(family):
    scores = [score(r.truth, r.response) for r in make_requests(make_world())[family]]
    assert sum(value == 1.0 for value in scores) >= 0.95 * len(scores)
    assert min(scores) >= 0.75


def test_answers_to_other_requests_are_worth_nothing():
    requests = [request for request in all_requests() if request.held_out]
    others = requests[:]
    random.Random(0).shuffle(others)
    wins = [
        prefer(one.truth, other.response, one.response) < 2.0
        for one, other in zip(requests, others, strict=True)
        if one.key != other.key
    ]
    assert sum(wins) < 0.02 * len(wins)


def test_well_formed_wrong_answer_loses_to_short_right_one():
    assert prefer(PLACE, "The capital of Velland is Mudron.", "Tasken") == 2.0


def test_order_only_swaps_the_verdict():
    assert prefer(PLACE, RIGHT, "I do not know.") == 1.0
    assert prefer(PLACE, "I do not know.", RIGHT) == 2.0
    assert prefer(PLACE, RIGHT, RIGHT) == 1.5


@pytest.mark.parametrize(
    "fault",
    [
        f"{RIGHT}\n<|query|>",
        f"{RIGHT}\nQ: yes",
        f"{RIGHT} And so on, and more of it, without any end to what it says of this.",
        f"{RIGHT} The capital of Velland is Tasken.",
        f"What is the capital? {RIGHT}",
    ],
    ids=["tag", "role", "runs on", "repeats", "asks"],
)
def test_right_answer_with_a_fault_of_form_loses_to_a_clean_one(fault):
    assert content(PLACE, fault) == 1.0
    assert prefer(PLACE, fault, RIGHT) == 2.0


def test_the_last_number_counts():
    assert score(MATH, "Ada has 3 + 4 = 7 eggs now.") == 1.0
    assert content(MATH, "Ada has 7 eggs and then 3 eggs.") < 0.5


def test_empty_output_is_worth_nothing():
    assert all(score(request.truth, "") == 0.0 for request in all_requests())


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind 'riddle'"):
        score({"kind": "riddle"}, "text")


def test_repeating_the_request_is_no_answer():
    rows = list(evaluation_rows())
    for row in rows:
        echo = row["instruction"]
        for output in (echo, f"{echo}\n<|tag|>\n{echo}", echo.replace("?", ".").upper()):
            assert content(row["truth"], output) == 0.0
    assert len(rows) >= 200
