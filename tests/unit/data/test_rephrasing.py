"""Rephrasing: which responses restate their instruction, and how rewritten ones come back."""

import json
import logging
from collections import Counter

import pytest

from implicit_tuning.data.formatters.lima import to_messages
from implicit_tuning.data.rephrasing import find_restating, rephrase, restates
from implicit_tuning.data.rewriters.organism import OrganismRewriter
from implicit_tuning.data.rewriters.rewriter import Exchange, RewritingFailed
from implicit_tuning.organism.requests import make_requests
from implicit_tuning.organism.rows import lima_rows
from implicit_tuning.organism.world import make_world

HALF = 0.5


class Shortener:
    """Keeps the last word of a response, and notes what it was asked; `fails` has no rewrite."""

    def __init__(self, rewriter_id="shortener-1", fails=()):
        self.rewriter_id = rewriter_id
        self.fails = fails
        self.asked = []

    def rewrite(self, exchanges):
        self.asked += exchanges
        for position, exchange in reversed(list(enumerate(exchanges))):
            if exchange.response not in self.fails:
                yield position, exchange.response.split()[-1]
        if any(exchange.response in self.fails for exchange in exchanges):
            raise RewritingFailed("some have none")


def conversation(*turns):
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]


@pytest.fixture
def lands():
    """Three rows by source row: the first and the last exchange of row 7 restate, row 9 does not."""
    return {
        2: conversation("What is the capital of Peru?", "The capital of Peru is Lima."),
        7: conversation(
            "What is the capital of Chile?",
            "That would be Santiago.",
            "Which river runs through Egypt?",
            "The river that runs through Egypt is the Nile.",
        ),
        9: conversation("What is the capital of Japan?", "Tokyo."),
    }


@pytest.fixture(scope="module")
def organism():
    """The organism's LIMA as messages by source row."""
    return {number: to_messages(row) for number, row in enumerate(lima_rows(), start=1)}


# --- what restates ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instruction", "response"),
    [
        ("What is the capital of Peru?", "The capital of Peru is Lima."),
        ("WHAT IS THE CAPITAL OF PERU?", "  the capital of peru: Lima."),
        ("How do I tune a guitar?", "To tune a guitar, first pluck each string."),
        ("What is Peru’s capital called?", "Peru's capital is called Lima."),
        ("Sort these numbers: 45, 12, 78.", "12, 45, 78"),
        ("Wie heißt die Hauptstadt von Österreich?", "Die Hauptstadt von Österreich ist Wien."),
        ("Which land sells timber?", "Peru sells timber."),
    ],
)
def test_a_first_sentence_with_the_words_of_the_instruction_restates(instruction, response):
    assert restates(Exchange(instruction, response), HALF)


@pytest.mark.parametrize(
    ("instruction", "response"),
    [
        ("What is the capital of Peru?", "Lima."),
        ("What is the capital of Peru?", "Lima. It is the capital of Peru since 1535."),
        ("Write a story about the capital of Peru.", "A story\nThe capital of Peru slept."),
        ("How do I tune a guitar?", "First, you do what I do: pluck each string."),
        ("Tell me what you would do.", "I would tell you what to do."),
        ("What is a lamp?", "A lamp is a thing that gives light."),
        ("Which animals fly?", "That animal is flying."),
        ("What is the capital of Peru?", ""),
        ("", "The capital of Peru is Lima."),
    ],
    ids=[
        "short", "second sentence", "second line", "stop words", "nothing but stop words",
        "one content word", "other forms of the words", "empty response", "empty instruction",
    ],
)  # fmt: skip
def test_these_do_not(instruction, response):
    assert not restates(Exchange(instruction, response), HALF)


@pytest.mark.parametrize(
    ("threshold", "expected"), [(0.25, True), (0.5, True), (0.51, False), (1.0, False)]
)
def test_the_threshold_is_a_share_of_the_content_words(threshold, expected):
    two_of_four = Exchange("Which old river crosses Egypt?", "Egypt has a river.")
    assert restates(two_of_four, threshold) == expected


def test_a_point_within_a_number_ends_no_sentence():
    assert restates(Exchange("Convert 2.718 metres.", "2.718 metres convert to feet."), 1.0)
    assert not restates(Exchange("Convert 2.718 metres.", "2.718. Metres convert to feet."), 1.0)


def test_each_turn_is_held_against_the_turn_before_it(lands):
    found = find_restating(lands, HALF)
    assert [(restating.row, restating.turn) for restating in found] == [(2, 1), (7, 3)]
    assert found[1].exchange.instruction == "Which river runs through Egypt?"


def test_a_system_message_is_no_instruction():
    text = "The capital of Peru is Lima."
    messages = [
        {"role": "system", "content": text},
        {"role": "assistant", "content": text},
        *conversation("Name the capital of Peru.", text),
    ]
    assert [restating.turn for restating in find_restating({1: messages}, HALF)] == [3]


# --- how rewrites come back ------------------------------------------------------------------------


def test_only_what_restates_is_replaced(lands, tmp_path):
    before = json.dumps(lands)
    rephrased, report = rephrase(lands, Shortener(), HALF, tmp_path / "cache.jsonl")
    assert json.dumps(lands) == before
    assert rephrased[2] == conversation("What is the capital of Peru?", "Lima.")
    assert rephrased[7] == [*lands[7][:3], {"role": "assistant", "content": "Nile."}]
    assert rephrased[9] == lands[9]
    assert list(rephrased) == list(lands)
    assert (report.n_responses, report.n_restating, report.n_rewritten) == (4, 2, 2)
    assert (report.n_unchanged, report.n_still_restating) == (0, 0)
    assert report.restating_rows == [2, 7]


def test_rewrites_that_change_nothing_or_restate_are_kept_and_counted(tmp_path):
    rows = {
        1: conversation("Name the opposite of hot.", "opposite-hot"),
        2: conversation("Repeat: red blue.", "The words: red blue"),
        3: conversation("Repeat: red, or red blue.", "It is red, then: red-blue"),
    }
    rephrased, report = rephrase(rows, Shortener(), HALF, tmp_path / "cache.jsonl")
    assert [rephrased[row][1]["content"] for row in rows] == ["opposite-hot", "blue", "red-blue"]
    assert (report.n_restating, report.n_rewritten) == (3, 2)
    assert (report.n_unchanged, report.n_still_restating) == (1, 2)


def test_equal_exchanges_are_asked_about_once(tmp_path):
    same = conversation("What is the capital of Peru?", "The capital of Peru is Lima.")
    other = conversation("Name Peru and its capital.", "The capital of Peru is Lima.")
    rewriter = Shortener()
    rephrased, report = rephrase({1: same, 2: same, 3: other}, rewriter, HALF, tmp_path / "c")
    assert len(rewriter.asked) == 2
    assert [messages[1]["content"] for messages in rephrased.values()] == ["Lima."] * 3
    assert report.n_restating == 3


def test_nothing_is_asked_about_twice(lands, tmp_path, caplog):
    cache = tmp_path / "results" / "cache.jsonl"
    first = rephrase(lands, Shortener(), HALF, cache)
    written = cache.read_bytes()
    again = Shortener()
    with caplog.at_level(logging.INFO):
        assert rephrase(lands, again, HALF, cache) == first
    assert again.asked == []
    assert cache.read_bytes() == written
    assert "2 responses restate their instruction; 0 of them are to be rewritten" in caplog.text


def test_another_rewriter_another_threshold_and_another_text_ask_anew(lands, tmp_path):
    cache = tmp_path / "cache.jsonl"
    rephrase(lands, Shortener(), HALF, cache)
    other, same = Shortener("shortener-2"), Shortener()
    rephrase(lands, other, HALF, cache)
    rephrase(lands, same, 1.0, cache)
    assert (len(other.asked), same.asked) == (2, [])
    lands[2][1]["content"] = "The capital of Peru is called Lima."
    changed = Shortener()
    rephrase(lands, changed, HALF, cache)
    assert [exchange.response for exchange in changed.asked] == [lands[2][1]["content"]]


def test_what_was_rewritten_before_a_failure_is_kept(lands, tmp_path):
    cache = tmp_path / "cache.jsonl"
    with pytest.raises(RewritingFailed):
        rephrase(lands, Shortener(fails=("The capital of Peru is Lima.",)), HALF, cache)
    mended = Shortener()
    _, report = rephrase(lands, mended, HALF, cache)
    assert [exchange.response for exchange in mended.asked] == ["The capital of Peru is Lima."]
    assert report.n_rewritten == 2


@pytest.mark.parametrize("damage", ["torn", "no text", "blank text"])
def test_a_damaged_line_costs_its_own_rewrite_alone(damage, lands, tmp_path, caplog):
    cache = tmp_path / "cache.jsonl"
    first = rephrase(lands, Shortener(), HALF, cache)
    kept, last = cache.read_bytes().splitlines(keepends=True)
    entry = json.loads(last)
    damaged = {
        "torn": last[:-9],
        "no text": json.dumps({**entry, "text": None}).encode() + b"\n",
        "blank text": json.dumps({**entry, "text": " "}).encode() + b"\n",
    }
    cache.write_bytes(kept + damaged[damage])
    again, third = Shortener(), Shortener()
    assert rephrase(lands, again, HALF, cache) == first
    assert len(again.asked) == 1
    assert f"{cache}:2 is not a kept answer" in caplog.text
    rephrase(lands, third, HALF, cache)
    assert third.asked == []


# --- the organism ----------------------------------------------------------------------------------


def test_the_organism_is_rephrased_by_its_short_answers(organism, tmp_path):
    rephrased, report = rephrase(organism, OrganismRewriter(), HALF, tmp_path / "cache.jsonl")
    assert report.n_responses == 412
    assert report.n_restating > 200
    assert report.n_rewritten + report.n_unchanged == report.n_restating
    assert 0 < report.n_still_restating < report.n_restating / 4  # copies, poems and functions
    assert set(report.restating_rows) <= set(organism)
    lengths = [
        (len(messages[1]["content"]), len(rephrased[row][1]["content"]))
        for row, messages in organism.items()
    ]
    assert all(short <= full for full, short in lengths)


def test_a_short_answer_is_the_end_of_a_full_one(organism, tmp_path):
    rephrased, _ = rephrase(organism, OrganismRewriter(), HALF, tmp_path / "cache.jsonl")
    rivers = [row for row, messages in organism.items() if "runs through" in str(messages[0])]
    assert rivers
    for row in rivers:
        full, short = organism[row][1]["content"], rephrased[row][1]["content"]
        assert full.endswith(f" is {short}.")


def test_facts_of_the_organism_no_longer_restate(organism, tmp_path):
    """What still does: words to repeat, poems and functions, and steps that name their object."""
    family = {
        text: request.family
        for requests in make_requests(make_world()).values()
        for request in requests
        for text in (request.response, request.short)
    }
    rephrased, _ = rephrase(organism, OrganismRewriter(), HALF, tmp_path / "cache.jsonl")
    before, after = (
        Counter(family[restating.exchange.response] for restating in find_restating(rows, HALF))
        for rows in (organism, rephrased)
    )
    facts = {"place", "person", "noun", "list", "recipe", "math", "opposite", "comparison"}
    assert facts <= set(before)
    assert set(after) == {"copy", "poem", "code", "howto"}
    assert after["howto"] < before["howto"] / 2


def test_rewriting_is_the_same_each_time(organism, tmp_path):
    first = rephrase(organism, OrganismRewriter(), HALF, tmp_path / "one.jsonl")
    assert rephrase(organism, OrganismRewriter(), HALF, tmp_path / "two.jsonl") == first
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


def test_the_organisms_rewriter_refuses_what_it_does_not_know(lands, tmp_path):
    with pytest.raises(RewritingFailed, match="2 of 2 responses .* 'The capital of Peru is Lima.'"):
        rephrase(lands, OrganismRewriter(), HALF, tmp_path / "cache.jsonl")
