"""Annotations: what two orders make of a pair, and which pairs they agree on."""

import pytest

from implicit_tuning.judging.annotations import Pass, position_consistency


@pytest.mark.parametrize(
    ("preferences", "consistency"),
    [
        ([1.2, 1.4], 100.0),
        ([1.2, 1.6], 0.0),
        ([1.5, 1.5], 100.0),
        ([1.5, 1.9], 0.0),
        ([1.1, 1.5], 0.0),
        ([None, 1.9], None),
        (None, None),
    ],
)
def test_orders_agree_on_a_winner_or_on_a_draw(preferences, consistency):
    assert position_consistency([{"preferences": preferences}]) == consistency


def test_pairs_that_were_not_judged_twice_do_not_count():
    rows = [{"preferences": p} for p in ([1.2, 1.3], [1.2, 1.8], None, [1.0, None], [2.0, 1.9])]
    assert position_consistency(rows) == pytest.approx(100 * 2 / 3)


def test_a_turned_pass_tells_the_same_verdicts_of_exchanged_roles():
    once = Pass({}, {"a": True, "b": False}, {"a": 1.25, "b": None})
    assert once.turned() == Pass({}, {"a": False, "b": True}, {"a": 1.75, "b": None})
    assert once.turned().turned() == once
