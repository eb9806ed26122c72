"""LIMA, Stanford Alpaca and Dolly: conversations and pairs."""

import pytest

from implicit_tuning.data.formatters import dolly, lima, stanford_alpaca
from implicit_tuning.data.rows import UnusableRow


def conversation(*turns):
    return {"conversations": list(turns), "source": "wiki"}


def contents(messages):
    return [(message["role"], message["content"]) for message in messages]


def test_lima_single_turn_keeps_outer_white_space():
    messages = lima.to_messages(conversation("  How?\n", "\n\nThus. "))
    assert contents(messages) == [("user", "  How?\n"), ("assistant", "\n\nThus. ")]


@pytest.mark.parametrize("turns", [4, 20])
def test_lima_turns_alternate(turns):
    texts = [f"turn {i}" for i in range(turns)]
    messages = lima.to_messages(conversation(*texts))
    assert [m["content"] for m in messages] == texts
    assert [m["role"] for m in messages] == ["user", "assistant"] * (turns // 2)


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([], "no conversations"),
        (["How?"], "odd number of turns"),
        (["How?", "Thus.", "And then?"], "odd number of turns"),
        (["How?", ""], "a turn without text"),
        (["How?", " \n"], "a turn without text"),
        (["How?", None], "a turn without text"),
        ([["How?"], "Thus."], "a turn without text"),
    ],
)
def test_lima_unusable(turns, reason):
    with pytest.raises(UnusableRow) as refused:
        lima.to_messages(conversation(*turns))
    assert refused.value.reason == reason


def test_lima_without_conversations():
    with pytest.raises(UnusableRow, match="no conversations"):
        lima.to_messages({"conversations": None, "source": "wiki"})


@pytest.mark.parametrize("empty", ["", "  ", None])
def test_alpaca_without_input(empty):
    row = {"instruction": "Count to two.", "input": empty, "output": "One, two."}
    assert contents(stanford_alpaca.to_messages(row)) == [
        ("user", "Count to two."),
        ("assistant", "One, two."),
    ]


def test_alpaca_input_stands_below_the_instruction():
    row = {"instruction": "Name the capital.", "input": "France", "output": "Paris."}
    assert stanford_alpaca.to_messages(row)[0]["content"] == "Name the capital.\n\nFrance"


@pytest.mark.parametrize("empty", ["", "  ", None])
def test_dolly_without_context(empty):
    row = {"instruction": "Count to two.", "context": empty, "response": "One, two."}
    assert contents(dolly.to_messages(row)) == [
        ("user", "Count to two."),
        ("assistant", "One, two."),
    ]


def test_dolly_context_stands_below_the_instruction():
    row = {"instruction": "When was that?", "context": "It was in 1891.", "response": "In 1891."}
    assert dolly.to_messages(row)[0]["content"] == "When was that?\n\nIt was in 1891."


@pytest.mark.parametrize("column", ["instruction", "response"])
def test_dolly_unusable(column):
    row = {"instruction": "Count.", "context": "", "response": "One."} | {column: ""}
    with pytest.raises(UnusableRow, match=f"no {column}"):
        dolly.to_messages(row)


@pytest.mark.parametrize("column", ["instruction", "output"])
def test_alpaca_unusable(column):
    row = {"instruction": "Count.", "input": "", "output": "One."} | {column: ""}
    with pytest.raises(UnusableRow, match=f"no {column}"):
        stanford_alpaca.to_messages(row)
