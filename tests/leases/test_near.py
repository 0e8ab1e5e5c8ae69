"""What a replica goes by without asking: only what is fresh, and only while it would hear of a change."""

from __future__ import annotations

import pytest

from gateway.leases.near import NearLeases

FRESH_S = 10.0


@pytest.fixture
def near() -> NearLeases:
    near = NearLeases(FRESH_S, 100)
    near.begin()
    near.note(b"c", "one", 1000.0, near.changes)
    return near


def test_what_was_told_is_gone_by_for_a_while(near: NearLeases) -> None:
    assert near.owner(b"c", 1000.0) == near.owner(b"c", 1009.9) == "one"
    assert near.owner(b"c", 1010.0) == ""
    assert near.owner(b"another", 1000.0) == ""


def test_what_was_told_again_is_gone_by_for_longer(near: NearLeases) -> None:
    near.note(b"c", "two", 1009.0, near.changes)
    assert near.owner(b"c", 1018.9) == "two"


def test_news_end_it_and_answers_to_questions_from_before_do_not_bring_it_back(near: NearLeases) -> None:
    asked = near.changes
    near.forget(b"c")
    assert near.owner(b"c", 1000.0) == ""
    near.note(b"c", "one", 1000.0, asked)
    assert near.owner(b"c", 1000.0) == ""
    near.note(b"c", "two", 1000.0, near.changes)
    assert near.owner(b"c", 1000.0) == "two"


def test_nothing_is_gone_by_while_news_may_be_missed(near: NearLeases) -> None:
    asked = near.changes
    near.end()
    assert near.owner(b"c", 1000.0) == ""
    near.note(b"c", "one", 1000.0, near.changes)
    assert near.owner(b"c", 1000.0) == ""
    near.begin()
    near.note(b"c", "one", 1000.0, asked)
    assert near.owner(b"c", 1000.0) == ""


def test_there_are_never_more_than_the_capacity_and_old_ones_go(near: NearLeases) -> None:
    for number in range(1000):
        near.note(b"%d" % number, "one", 1000.0, near.changes)
    assert len(near) == 100
    assert near.owner(b"999", 1000.0) == "one"
    for number in range(50):
        near.note(b"later %d" % number, "one", 1010.0, near.changes)
    assert len(near) == 50
