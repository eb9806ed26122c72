import numpy as np
import pytest

from implicit_tuning.training.updates import plan_updates, shares


def test_order_is_a_fresh_permutation_of_seed_and_epoch():
    updates = plan_updates(10, seed=3, epochs=2, batch_examples=4)
    assert [len(update.positions) for update in updates] == [4, 4, 2, 4, 4, 2]
    orders = [
        [i for update in updates if update.epoch == epoch for i in update.positions]
        for epoch in (1, 2)
    ]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert orders[0] != orders[1]
    assert plan_updates(10, seed=3, epochs=5, batch_examples=4)[: len(updates)] == updates
    assert plan_updates(10, seed=4, epochs=2, batch_examples=4) != updates


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_every_example_is_dealt_once_and_tokens_are_balanced(processes):
    lengths = np.random.default_rng(0).lognormal(6, 0.8, 64).astype(int).clip(1, 2048).tolist()
    dealt = shares(lengths, processes)
    assert sorted(i for share in dealt for i in share) == list(range(64))
    tokens = [sum(lengths[i] for i in share) for share in dealt]
    assert max(tokens) <= 1.05 * sum(lengths) / processes
    assert dealt == shares(lengths, processes)


def test_more_processes_than_examples_leave_some_without():
    assert shares([5, 9], 3) == [[1], [0], []]
