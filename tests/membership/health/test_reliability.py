"""The share of an agent that stays in, and of one that comes back."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from gateway.membership.health import HealthSpec, OutlierSpec, SlowStartSpec
from tests.membership.health.fleet import Fleet, agent

NAMES = ["a0", "a1", "a2", "a3", "a4"]


def test_a_healthy_fleet_is_left_untouched() -> None:
    fleet, chance = Fleet([agent(name) for name in NAMES]), Random(7)
    for _ in range(300):
        for name in NAMES:
            for _ in range(chance.randrange(8)):
                # Latencies as they are: some take ten times as long as most; one in a hundred fails.
                if chance.random() < 0.01:
                    fleet.fail(name)
                else:
                    fleet.ok(name, latency_s=chance.lognormvariate(0, 1))
        fleet.pass_s(1)
    assert fleet.changes == 0
    assert all(seen is known for seen, known in zip(fleet.health.overlay(fleet.agents), fleet.agents, strict=True))


def test_failing_half_the_time_halves_the_share_and_time_heals_it() -> None:
    fleet = Fleet([agent(name) for name in NAMES])
    for _ in range(60):
        for _ in range(5):
            fleet.ok("a0")
            fleet.fail("a0")
        fleet.pass_s(1)
    assert fleet.share("a0") == 0.5
    assert fleet.share("a1") == 1.0
    for _ in range(300):
        fleet.ok("a0", 5)
        fleet.pass_s(1)
    assert fleet.share("a0") == 1.0


def test_one_failure_among_few_packets_changes_nothing() -> None:
    fleet = Fleet([agent(name) for name in NAMES])
    fleet.fail("a0")
    fleet.pass_s(10)
    assert (fleet.share("a0"), fleet.changes) == (1.0, 0)


def test_shares_change_at_most_every_five_seconds() -> None:
    never = HealthSpec(outlier=OutlierSpec(consecutive_failures=10_000))
    fleet, changed_at = Fleet([agent(name) for name in NAMES], never), []
    chance = Random(3)
    for _ in range(120):
        for name in NAMES:
            for _ in range(5):
                fleet.health.observed(name, ok=chance.random() < 0.6, latency_s=0.1)
            fleet.ok(name)
        before = fleet.changes
        fleet.pass_s(1)
        if fleet.changes > before:
            changed_at.append(fleet.now)
    assert changed_at
    assert all(later - earlier >= 5 for earlier, later in pairwise(changed_at))


def test_an_agent_much_slower_than_its_peers_has_a_smaller_share_until_it_is_faster() -> None:
    fleet = Fleet([agent(name) for name in NAMES])

    def a_second(slow_s: float) -> None:
        for name in NAMES:
            fleet.ok(name, 10, latency_s=slow_s if name == "a0" else 0.1)
        fleet.pass_s(1)

    for _ in range(10):
        a_second(0.4)
    assert fleet.share("a0") == 0.5
    for _ in range(10):
        a_second(40.0)
    assert fleet.share("a0") == 0.25  # however slow
    for _ in range(900):
        a_second(0.1)
    assert fleet.share("a0") == 1.0


def test_twice_as_slow_is_nothing_yet() -> None:
    fleet = Fleet([agent(name) for name in NAMES])
    for _ in range(30):
        for name in NAMES:
            fleet.ok(name, 10, latency_s=0.19 if name == "a0" else 0.1)
        fleet.pass_s(1)
    assert fleet.changes == 0


def test_an_agent_is_not_slow_for_what_only_it_is_asked_to_do() -> None:
    """Of several capabilities the slowest counts."""
    quick = [agent(f"q{number}", "lint") for number in range(5)]
    thorough = [agent(f"t{number}", "lint", "review") for number in range(3)]
    fleet = Fleet([*quick, *thorough])
    for _ in range(10):
        for each in fleet.agents:
            fleet.ok(each.name, 10, latency_s=20.0 if each in thorough else 0.1)
        fleet.pass_s(1)
    assert fleet.changes == 0


def test_without_packets_what_was_slow_is_forgotten() -> None:
    fleet = Fleet([agent(name) for name in NAMES])
    for name in NAMES:
        fleet.ok(name, 20, latency_s=2.0 if name == "a0" else 0.1)
    fleet.pass_s(5)
    assert fleet.share("a0") == 0.25
    fleet.pass_s(310)
    assert fleet.share("a0") == 1.0


def test_a_return_begins_with_a_small_share_that_grows() -> None:
    fleet = Fleet([agent(name) for name in NAMES])
    fleet.fail("a0", 5)
    fleet.pass_s(30)
    shares = []
    for _ in range(32):
        shares.append(fleet.share("a0"))
        fleet.pass_s(1)
    assert shares[0] == 0.125
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert 4 <= len(set(shares)) <= 8
    assert all(share * 8 == int(share * 8) for share in shares)


@pytest.mark.parametrize("new_members", [False, True])
def test_new_members_of_a_running_gateway_start_slowly_if_told_so(new_members: bool) -> None:
    fleet = Fleet([agent("a0")], HealthSpec(slow_start=SlowStartSpec(new_members=new_members)))
    assert fleet.share("a0") == 1.0
    fleet.follow([agent("a0"), agent("a1")])
    assert fleet.share("a1") == (0.125 if new_members else 1.0)
    fleet.pass_s(35)
    assert fleet.share("a1") == 1.0


def test_what_changed_is_the_same_object_until_it_changes_again() -> None:
    fleet = Fleet([agent(name) for name in NAMES])
    fleet.fail("a0", 5)
    assert fleet.as_seen()["a0"] is fleet.as_seen()["a0"]
    assert fleet.as_seen()["a1"] is fleet.agents[1]


def test_who_leaves_while_shares_are_reconsidered_is_not_taken_for_who_comes_after() -> None:
    fleet = Fleet([agent(name) for name in NAMES])
    for _ in range(50):
        fleet.ok("a0")
        fleet.fail("a0")
    fleet.now += 5
    for _ in fleet.health._steps():
        fleet.follow([agent("a0", port=9090), *fleet.agents[1:]])
    assert fleet.share("a0") == 1.0
    assert fleet.changes == 0
