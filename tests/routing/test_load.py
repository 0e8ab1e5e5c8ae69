"""Bounded load: who takes what its owner has no room for, and for how long."""

from __future__ import annotations

import pytest

from gateway.routing import Agent, Load, Ring, pick, pick_other


def agent(name: str, trust: float = 1.0) -> Agent:
    return Agent(name, "127.0.0.1", 80, frozenset({"code.execute"}), trust)


RING = Ring([agent(name) for name in "abcd"])
KEY = b"c-17"


def test_a_busy_conversation_spills_over_clockwise_and_returns_when_there_is_room() -> None:
    load = Load()
    first, second, *_ = (each.name for each in RING.walk(KEY))
    picked = []
    for _ in range(4):
        picked.append(pick(RING, KEY, load).name)
        load.begin(picked[-1])
    # 1.25 × 2 packets / 4 agents, rounded up: room for one, and for two from the fourth packet on.
    assert picked[:2] == [first, second]
    assert len(set(picked[:3])) == 3
    assert picked[3] == first
    for name in picked:
        load.end(name)
    assert pick(RING, KEY, load).name == first


def test_a_wider_bound_keeps_conversations_together() -> None:
    load = Load()
    for _ in range(4):
        load.begin(pick(RING, KEY, load, c=4).name)
    assert dict(load.counts) == {RING.owner(KEY).name: 4}


def test_who_weighs_more_takes_more() -> None:
    ring, load = Ring([agent("heavy"), agent("light", 0.25)]), Load()
    for number in range(100):
        load.begin(pick(ring, b"%d" % number, load, c=1).name)
    assert load.of("heavy") == 80
    assert load.of("light") == 20


def test_packets_at_an_agent_that_left_are_still_counted() -> None:
    load = Load()
    first = pick(RING, KEY, load).name
    load.begin(first)
    smaller = RING.changed(removed=[first])
    second = pick(smaller, KEY, load).name
    load.begin(second)
    assert (load.total, load.of(first), load.of(second)) == (2, 1, 1)
    load.end(first)
    load.end(second)
    assert (load.total, dict(load.counts)) == (0, {})


def test_when_none_of_the_others_has_room_a_retry_goes_to_the_first_of_them() -> None:
    load = Load()
    first, second, *others = (each.name for each in RING.walk(KEY))
    for name in (second, *others):
        for _ in range(10):
            load.begin(name)
    again = pick_other(RING, KEY, load, {first}, c=1)
    assert again is not None
    assert again.name == second


def test_a_packet_that_is_not_under_way_cannot_end() -> None:
    load = Load()
    with pytest.raises(KeyError):
        load.end("a")
    assert load.total == 0


def test_from_an_empty_ring_nothing_is_picked() -> None:
    with pytest.raises(LookupError):
        pick(Ring([]), KEY, Load())
    assert pick_other(Ring([]), KEY, Load(), ()) is None
