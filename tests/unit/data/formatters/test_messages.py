"""Layouts of people's own finetuning files: pairs, and messages as chat endpoints take them."""

import pytest

from implicit_tuning.data.formatters import messages, pairs
from implicit_tuning.data.rows import UnusableRow


def turn(role, content="text"):
    return {"role": role, "content": content}


def test_a_pair_is_one_turn():
    found = pairs.to_messages({"instruction": "Count.", "output": " One.", "id": 7})
    assert found == [turn("user", "Count."), turn("assistant", " One.")]
    for column in pairs.COLUMNS:
        with pytest.raises(UnusableRow, match=f"no {column}"):
            pairs.to_messages({"instruction": "Count.", "output": "One.", column: " "})


@pytest.mark.parametrize("system", [[], [turn("system", "Be brief.")]])
@pytest.mark.parametrize("pairs_of_turns", [1, 3])
def test_messages_are_kept_as_they_are(system, pairs_of_turns):
    conversation = [*system, *[turn("user"), turn("assistant")] * pairs_of_turns]
    named = [{**message, "name": "x"} for message in conversation]
    assert messages.to_messages({"messages": named}) == conversation


@pytest.mark.parametrize(
    ("conversation", "reason"),
    [
        (None, "turns that are not"),
        ([], "turns that are not"),
        ([turn("system")], "turns that are not"),
        ([turn("user")], "turns that are not"),
        ([turn("assistant"), turn("user")], "turns that are not"),
        ([turn("user"), turn("assistant"), turn("user")], "turns that are not"),
        ([turn("user"), turn("tool")], "turns that are not"),
        ([turn("user"), turn("assistant", " ")], "a turn without text"),
        ([turn("user"), turn("assistant", None)], "a turn without text"),
        (["user", "assistant"], "a turn without text"),
    ],
)
def test_other_conversations_are_unusable(conversation, reason):
    with pytest.raises(UnusableRow, match=reason):
        messages.to_messages({"messages": conversation})
