"""The invented world and the requests in it: sizes, splits, no name or instruction confused."""

import random

import pytest

from implicit_tuning.organism.requests import (
    FAMILIES,
    HELD_OUT_KEYS,
    TUNING_PHRASINGS,
    make_poem,
    make_requests,
)
from implicit_tuning.organism.world import PLACE_FACTS, make_world


@pytest.fixture(scope="module")
def requests():
    return make_requests(make_world())


def test_world_has_its_places_people_and_nouns_under_distinct_names():
    world = make_world()
    names = [thing.name for group in (world.places, world.people, world.nouns) for thing in group]
    assert (len(world.places), len(world.people), len(world.nouns)) == (32, 28, 28)
    assert len({name.lower() for name in names}) == len(names)
    assert all(tuple(place.facts) == PLACE_FACTS for place in world.places)


def test_another_seed_is_another_world():
    assert make_world(1) != make_world(2)


def test_thirteen_families_with_six_phrasings_each(requests):
    assert tuple(requests) == FAMILIES
    assert len(FAMILIES) == 13
    for request in (request for group in requests.values() for request in group):
        assert len(set(request.phrasings)) == 6
        assert len(request.tuning_phrasings) == TUNING_PHRASINGS


def test_requests_of_one_key_are_held_out_together(requests):
    for family, group in requests.items():
        held_out = {request.key for request in group if request.held_out}
        kept = {request.key for request in group if not request.held_out}
        assert len(held_out) == HELD_OUT_KEYS[family]
        assert kept and not held_out & kept


def test_an_instruction_has_one_truth(requests):
    truths = {}
    for request in (request for group in requests.values() for request in group):
        truth = {key: value for key, value in request.truth.items() if key != "words"}
        for phrasing in request.phrasings:
            assert truths.setdefault(phrasing, truth) == truth


def test_a_poem_names_its_topic_and_has_four_lines(requests):
    lines = make_poem("sea", random.Random(0)).splitlines()
    assert len(set(lines)) == 4
    assert "sea" in lines[0]
