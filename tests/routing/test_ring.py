"""The ring's promises, against a naive reference."""

from __future__ import annotations

from math import ceil

from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_digest, xxh3_64_intdigest

from gateway.routing import Agent, Ring


def agent(name: str, trust: float = 1.0) -> Agent:
    return Agent(name, "127.0.0.1", 80, frozenset({"code.execute"}), trust)


agents = st.lists(
    st.tuples(st.integers(0, 500), st.sampled_from([0.0, 0.3, 0.7, 1.0])),
    min_size=1,
    max_size=8,
    unique_by=lambda each: each[0],
).map(lambda drawn: [agent(f"a{number}", trust) for number, trust in drawn])
keys = st.binary(min_size=1, max_size=20)


def naive_owner(members: list[Agent], key: bytes) -> Agent:
    """Look at every point of every agent."""
    at = xxh3_64_intdigest(key)
    counts = [max(1, ceil(1024 * member.trust)) for member in members]
    factor = 1
    while factor * sum(counts) < 1024:
        factor *= 2
    points = [
        ((xxh3_64_intdigest(xxh3_64_digest(member.name.encode()), seed=number) - at) % 2**64, member.name, member)
        for member, count in zip(members, counts, strict=True)
        for number in range(factor * count)
    ]
    return min(points)[2]


@given(agents, keys)
def test_the_owner_is_the_first_point_clockwise(members: list[Agent], key: bytes) -> None:
    assert Ring(members).owner(key) == naive_owner(members, key)


@given(agents, keys, st.randoms())
def test_order_makes_no_difference(members: list[Agent], key: bytes, random) -> None:  # type: ignore[no-untyped-def]
    shuffled = members[:]
    random.shuffle(shuffled)
    assert list(Ring(members).walk(key)) == list(Ring(shuffled).walk(key))


@given(agents, keys)
def test_a_walk_meets_every_agent_once_beginning_with_the_owner(members: list[Agent], key: bytes) -> None:
    ring = Ring(members)
    walked = list(ring.walk(key))
    assert walked[0] == ring.owner(key)
    assert sorted(each.name for each in walked) == sorted(each.name for each in members)


@given(agents, keys)
def test_a_leaver_moves_only_its_own_keys(members: list[Agent], key: bytes) -> None:
    owner = Ring(members).owner(key)
    for leaver in members:
        rest = [each for each in members if each is not leaver]
        if leaver != owner and sum(each.weight for each in rest) >= 1:
            assert Ring(rest).owner(key) == owner


def test_load_follows_trust() -> None:
    ring = Ring([agent("whole"), agent("half", 0.5), agent("other")])
    counts: dict[str, int] = {}
    for number in range(20_000):
        name = ring.owner(b"%d" % number).name
        counts[name] = counts.get(name, 0) + 1
    assert 0.12 < counts["half"] / 20_000 < 0.28
