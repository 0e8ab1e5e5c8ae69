"""How evenly rings of ordinary sizes spread keys, and how little a change of members costs."""

from __future__ import annotations

import pytest

from gateway.routing import Agent, Ring
from gateway.routing.plan import fair_shares, key_shares, plan, spread
from gateway.routing.simulate import agents


def agent(name: str, trust: float = 1.0, reliability: float = 1.0) -> Agent:
    return Agent(name, "127.0.0.1", 80, frozenset({"code.execute"}), trust, reliability=reliability)


@pytest.mark.parametrize("count", [10, 100, 1000])
def test_no_agent_has_much_more_than_the_mean(count: int) -> None:
    ring = Ring(agents(count), 160)
    assert spread(key_shares(ring), fair_shares(ring)).highest <= 1.35


@pytest.mark.parametrize("count", [10, 100, 1000])
def test_who_joins_takes_its_share_and_one_percent_at_most(count: int) -> None:
    ring = Ring(agents(count))
    for newcomer in agents(3, count):
        change = plan(ring, ring.changed([newcomer]))
        assert 0 < change.moved <= 1 / (count + 1) + 0.01


def test_keys_follow_trust_and_reliability() -> None:
    ring = Ring([agent("whole"), agent("half", 0.5), agent("shaky", 1.0, 0.25), agent("other")])
    shares = dict(zip((each.name for each in ring.agents), key_shares(ring).tolist(), strict=True))
    for name, due in (("whole", 1 / 2.75), ("half", 0.5 / 2.75), ("shaky", 0.25 / 2.75), ("other", 1 / 2.75)):
        assert shares[name] == pytest.approx(due, rel=0.15)


def test_an_agent_that_nobody_trusts_has_a_point_all_the_same() -> None:
    ring = Ring([agent("trusted"), agent("not", 0.0)])
    assert len(ring) == 1025
    assert [each.name for each in ring.walk(b"k")] == ["trusted", "not"]


def test_of_light_agents_everybodys_points_are_multiplied() -> None:
    assert len(Ring([agent("a", 0.5)])) == 1024
    assert len(Ring([agent("a", 0.1)])) == 103 * 16
    assert len(Ring([agent("a", 0.0)])) == 1024


def test_a_change_of_what_is_no_weight_costs_no_copy() -> None:
    ring = Ring([agent("a"), agent("b")])
    moved = ring.changed([Agent("a", "127.0.0.1", 81, frozenset({"code.execute"}))])
    assert moved.agents[0].port == 81
    assert moved.marks().points is ring.marks().points
    assert ring.changed([agent("a")], ["nobody"]) is ring


def test_an_empty_ring_has_no_owner_and_takes_members() -> None:
    empty = Ring([])
    with pytest.raises(LookupError):
        empty.owner(b"k")
    assert list(empty.walk(b"k")) == []
    full = empty.changed([agent("a")])
    assert full.owner(b"k") == agent("a")
    assert full.changed(removed=["a"]).agents == ()
