"""What a change of members moves, against keys that are asked one by one; churn and load, simulated."""

from __future__ import annotations

from math import ceil
from random import Random

import pytest

from gateway.routing import Agent, Ring
from gateway.routing.plan import fair_shares, key_shares, plan, spread
from gateway.routing.simulate import agents, bounded, churn, simulate, unbounded

KEYS = [b"c-%d" % number for number in range(20_000)]


def agent(name: str, trust: float = 1.0) -> Agent:
    return Agent(name, "127.0.0.1", 80, frozenset({"code.execute"}), trust)


def test_a_plan_tells_what_happens_to_keys() -> None:
    before = Ring([agent("a"), agent("b"), agent("c", 0.4), agent("d")])
    after = Ring([agent("a"), agent("b", 0.6), agent("c", 0.4), agent("e")])
    change = plan(before, after)
    assert (change.joined, change.left, change.reweighted) == (("e",), ("d",), ("b",))
    moved = [(before.owner(key).name, after.owner(key).name) for key in KEYS]
    for move in change.moves:
        seen = moved.count((move.origin, move.target)) / len(KEYS)
        assert move.share == pytest.approx(seen, abs=0.01)
    assert change.moved == pytest.approx(sum(move.share for move in change.moves))
    assert change.between_survivors == pytest.approx(
        sum(move.share for move in change.moves if move.origin != "d" and move.target != "e")
    )
    assert 0 < change.between_survivors < change.moved
    assert change.overhead >= 1


def test_shares_of_keys_are_those_of_keys_asked_one_by_one() -> None:
    ring = Ring([agent("a"), agent("b", 0.5), agent("c", 0.1)])
    owners = [ring.owner(key).name for key in KEYS]
    for each, share in zip(ring.agents, key_shares(ring).tolist(), strict=True):
        assert share == pytest.approx(owners.count(each.name) / len(KEYS), abs=0.01)
    assert key_shares(ring).sum() == pytest.approx(1)


def test_the_same_members_move_nothing() -> None:
    ring = Ring(agents(5))
    change = plan(ring, Ring(agents(5)))
    assert (change.moved, change.moves, change.overhead) == (0, (), 1)


def test_between_a_ring_and_none_no_key_moves() -> None:
    change = plan(Ring([]), Ring(agents(2)))
    assert (change.joined, change.moved) == (("agent-00000", "agent-00001"), 0)
    assert plan(Ring(agents(2)), Ring([])).left == ("agent-00000", "agent-00001")


def test_churn_moves_the_fair_share_of_who_comes_or_goes_and_nothing_between_others() -> None:
    steps = churn(Ring(agents(50), 160), joins=10, leaves=10, rng=Random(3))
    assert [step.joins for step in steps].count(True) == 10
    assert all(step.between_survivors == 0 for step in steps)
    assert all(step.overhead == pytest.approx(1) for step in steps)
    assert all(step.moved == pytest.approx(step.ideal, rel=0.35) for step in steps)


def test_the_last_member_stays() -> None:
    steps = churn(Ring(agents(3), 160), joins=0, leaves=5, rng=Random(3))
    assert [step.members for step in steps] == [3, 2]


def test_bounded_load_evens_out_what_is_under_way() -> None:
    ring = Ring(agents(50), 160)
    alone, evened = unbounded(ring, Random(1), 500), bounded(ring, Random(1), 500)
    assert evened.spread.highest <= ceil(1.25 * 10) / 10
    assert evened.spread.highest < alone.spread.highest
    assert evened.spread.deviation < alone.spread.deviation
    assert alone.at_owner == 1
    assert 0.7 < evened.at_owner < 1


def test_a_simulation_is_repeatable() -> None:
    first, second = (simulate(20, 160, 3, 3, Random(7)) for _ in range(2))
    assert (first.keys, first.steps, first.bounded.spread) == (second.keys, second.steps, second.bounded.spread)
    assert first.moved_to_ideal == pytest.approx(1, abs=0.2)


def test_a_spread_is_measured_by_fair_shares() -> None:
    ring = Ring([agent("a"), agent("b", 0.5)])
    even = spread(fair_shares(ring), fair_shares(ring))
    assert (even.highest, even.deviation, even.variation) == (1, 0, 0)
