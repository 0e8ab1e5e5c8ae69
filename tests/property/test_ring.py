"""What holds for every ring, next to a naive one that looks at every point of every agent."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_digest, xxh3_64_intdigest

from gateway.routing import Agent, Load, Ring, pick, pick_other
from gateway.routing import ring as ring_module
from gateway.routing.plan import key_shares, plan
from gateway.routing.points import Counts, Marks, points_of

WEIGHTS = [0.0, 0.0004, 0.3, 0.7, 1.0]


def agent(name: str, trust: float = 1.0, port: int = 80) -> Agent:
    return Agent(name, "127.0.0.1", port, frozenset({"code.execute"}), trust)


names = st.integers(0, 30).map(lambda number: f"a{number}")
members = st.dictionaries(names, st.sampled_from(WEIGHTS), min_size=1, max_size=8).map(
    lambda drawn: [agent(name, trust) for name, trust in drawn.items()]
)
keys = st.binary(min_size=1, max_size=20)
sizes = st.sampled_from([1, 16, 160, 1024, 1500])


def naive_points(agents: list[Agent], points: int) -> list[tuple[int, Agent]]:
    counts = [max(1, ceil(points * each.weight)) for each in agents]
    factor = 1
    while factor * sum(counts) < min(points, 1024):
        factor *= 2
    return [
        (xxh3_64_intdigest(xxh3_64_digest(each.name.encode()), seed=number), each)
        for each, count in zip(agents, counts, strict=True)
        for number in range(factor * count)
    ]


def naive_walk(agents: list[Agent], points: int, key: bytes) -> list[Agent]:
    at = xxh3_64_intdigest(key)
    clockwise = sorted(naive_points(agents, points), key=lambda mark: ((mark[0] - at) % 2**64, mark[1].name))
    return list(dict.fromkeys(each for _, each in clockwise))


def circle(ring: Ring) -> tuple[bytes, bytes]:
    """All that there is to say of a ring."""
    marks = ring.marks()
    return marks.points.tobytes(), marks.owners.tobytes()


@given(members, sizes, keys)
@settings(deadline=None)
def test_agents_follow_each_other_as_their_points_do_clockwise(agents: list[Agent], points: int, key: bytes) -> None:
    ring = Ring(agents, points)
    walked = naive_walk(agents, points, key)
    assert ring.owner(key) == walked[0]
    assert list(ring.walk(key)) == walked
    assert sorted(walked, key=lambda each: each.name) == list(ring.agents)


@given(st.lists(st.tuples(st.text(max_size=30), st.integers(1, 40)), max_size=4))
def test_points_are_those_of_the_hash_library(drawn: list[tuple[str, int]]) -> None:
    marks = points_of([name for name, _ in drawn], np.array([count for _, count in drawn], np.int64))
    assert list(zip(marks.owners.tolist(), marks.points.tolist(), strict=True)) == [
        (at, xxh3_64_intdigest(xxh3_64_digest(name.encode()), seed=number))
        for at, (name, count) in enumerate(drawn)
        for number in range(count)
    ]


@given(members, sizes, st.randoms())
def test_the_same_members_in_any_order_make_the_same_ring(agents: list[Agent], points: int, random: Random) -> None:
    shuffled = agents[:]
    random.shuffle(shuffled)
    assert circle(Ring(agents, points)) == circle(Ring(shuffled, points))
    assert Ring(agents, points).agents == Ring(shuffled, points).agents


@given(members)
def test_a_ring_has_at_least_1024_points_in_proportion_to_weight(agents: list[Agent]) -> None:
    ring = Ring(agents)
    assert len(ring) >= 1024
    counts = np.bincount(ring.marks().owners, minlength=len(agents)).tolist()
    factor = min(counts[at] // max(1, ceil(1024 * each.weight)) for at, each in enumerate(ring.agents))
    for each, count in zip(ring.agents, counts, strict=True):
        assert 0 <= Fraction(count, factor) - Fraction(1024 * each.weight) <= 1
        assert ring.share(each) == pytest.approx(count / len(ring))


changes = st.lists(
    st.tuples(
        st.dictionaries(names, st.tuples(st.sampled_from(WEIGHTS), st.sampled_from([80, 81])), max_size=3),
        st.lists(names, max_size=3),
    ),
    min_size=1,
    max_size=5,
)
Changes = list[tuple[dict[str, tuple[float, int]], list[str]]]


def follow(agents: list[Agent], points: int, steps: Changes) -> Ring:
    """Change a ring step by step, and hold each against the one that is built from its members."""
    now = {each.name: each for each in agents}
    ring = Ring(agents, points)
    for upserted, removed in steps:
        before = circle(ring)
        joined = [agent(name, trust, port) for name, (trust, port) in upserted.items()]
        after = ring.changed(joined, removed)
        assert circle(ring) == before
        now = {name: each for name, each in now.items() if name not in removed} | {each.name: each for each in joined}
        scratch = Ring(now.values(), points)
        assert after.agents == scratch.agents
        assert circle(after) == circle(scratch)
        assert len(after) == len(scratch)
        assert [after.share(each) for each in after.agents] == [scratch.share(each) for each in scratch.agents]
        if now:
            for number in range(20):
                assert list(after.walk(b"%d" % number)) == list(scratch.walk(b"%d" % number))
        ring = after
    return ring


crowd = [agent(f"c{number}") for number in range(40)]
"""So many that what changes is little of it."""


@given(members, sizes, changes, st.booleans())
@settings(deadline=None)
def test_a_ring_that_changed_is_the_one_that_its_members_make(
    agents: list[Agent], points: int, steps: Changes, crowded: bool
) -> None:
    follow(agents + crowd if crowded else agents, min(points, 160), steps)


@given(members, sizes, changes, st.sets(names))
@settings(deadline=None)
def test_a_part_of_a_ring_is_the_ring_of_that_part(
    agents: list[Agent], points: int, steps: Changes, names: set[str]
) -> None:
    whole = follow(agents, points, steps)
    part, scratch = whole.only(names), Ring([each for each in whole.agents if each.name in names], points)
    assert part.agents == scratch.agents
    assert circle(part) == circle(scratch)
    assert [part.share(each) for each in part.agents] == [scratch.share(each) for each in scratch.agents]
    joined = agent("z")
    assert circle(part.changed([joined])) == circle(scratch.changed([joined]))


@given(members, changes)
@settings(deadline=None, max_examples=50)
def test_points_that_coincide_make_no_difference(agents: list[Agent], steps: Changes) -> None:
    def coarse(names: list[str], counts: Counts) -> Marks:
        marks = points_of(names, counts)
        return Marks(marks.points & np.uint64(0xFFF << 52), marks.owners)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ring_module, "points_of", coarse)
        follow(agents + crowd, 16, steps)


@given(members, st.sampled_from(["joins", "leaves"]), names)
@settings(deadline=None)
def test_who_joins_or_leaves_moves_keys_to_or_from_itself_only(agents: list[Agent], how: str, name: str) -> None:
    others = [each for each in agents if each.name != name] + [agent("b1"), agent("b2", 0.7)]
    smaller, larger = Ring(others), Ring([*others, agent(name)])
    change = plan(smaller, larger) if how == "joins" else plan(larger, smaller)
    assert change.between_survivors == 0
    assert change.moves
    assert all(name == (move.target if how == "joins" else move.origin) for move in change.moves)
    at = [each.name for each in larger.agents].index(name)
    assert change.moved == pytest.approx(key_shares(larger)[at])
    assert change.overhead == pytest.approx(1)


@given(members, keys, st.integers(1, 60), st.sampled_from([1.0, 1.25, 2.0]))
@settings(deadline=None)
def test_no_pick_takes_an_agent_above_its_bound(agents: list[Agent], key: bytes, packets: int, c: float) -> None:
    ring, load = Ring(agents), Load()
    for number in range(packets):
        picked = pick(ring, key + b"%d" % (number % 3), load, c)
        load.begin(picked.name)
        assert load.of(picked.name) <= ceil(c * load.total * ring.share(picked))
    assert load.total == packets == sum(load.counts.values())


@given(members, keys, st.lists(names, max_size=40))
@settings(deadline=None)
def test_a_pick_is_the_first_with_room_and_the_owner_again_when_it_has(
    agents: list[Agent], key: bytes, under_way: list[str]
) -> None:
    ring, load = Ring(agents), Load()
    for name in under_way:
        load.begin(name)
    walked = list(ring.walk(key))
    with_room = [each for each in walked if load.of(each.name) < ceil(1.25 * (load.total + 1) * ring.share(each))]
    assert pick(ring, key, load) == with_room[0]
    for name in under_way:
        load.end(name)
    assert pick(ring, key, load) == ring.owner(key)
    assert (load.total, dict(load.counts)) == (0, {})


@given(members, keys, st.lists(names, max_size=40), st.sets(names))
@settings(deadline=None)
def test_a_retry_goes_to_each_of_the_others_once(
    agents: list[Agent], key: bytes, under_way: list[str], tried: set[str]
) -> None:
    ring, load = Ring(agents), Load()
    for name in under_way:
        load.begin(name)
    left = {each.name for each in agents} - tried
    while (other := pick_other(ring, key, load, tried)) is not None:
        left.remove(other.name)
        tried.add(other.name)
    assert not left
