"""Who is ejected, for how long, and who never is."""

from __future__ import annotations

import pytest

from gateway.membership.health import HealthSpec, OutlierSpec, Reason
from gateway.routing import AgentState
from tests.membership.health.fleet import Fleet, agent


def fleet(size: int = 3, **outlier: object) -> Fleet:
    spec = HealthSpec(outlier=OutlierSpec.model_validate(outlier))
    return Fleet([agent(f"a{number}") for number in range(size)], spec)


def test_five_failures_in_a_row_eject_at_once() -> None:
    three = fleet()
    three.fail("a0", 4)
    assert (three.out, three.changes) == ([], 0)
    three.fail("a0")
    assert (three.out, three.changes) == (["a0"], 1)
    assert three.health.ejections[Reason.CONSECUTIVE_FAILURES] == 1


def test_a_success_in_between_begins_the_count_anew() -> None:
    three = fleet()
    for _ in range(10):
        three.fail("a0", 4)
        three.ok("a0")
    assert three.out == []


def test_an_ejection_ends_after_its_time_and_the_change_is_told() -> None:
    three = fleet()
    three.fail("a0", 5)
    three.pass_s(29)
    assert (three.out, three.changes) == (["a0"], 1)
    three.pass_s(1)
    assert (three.out, three.changes) == ([], 2)


def test_each_ejection_takes_longer_up_to_a_bound() -> None:
    three = fleet(baseEjection="30s", maxEjection="100s")
    took = []
    for _ in range(5):
        three.fail("a0", 5)
        began = three.now
        while three.out:
            three.pass_s(1)
        took.append(three.now - began)
    assert took == [30, 60, 90, 100, 100]


def test_who_behaves_is_forgiven() -> None:
    three = fleet()
    for _ in range(3):
        three.fail("a0", 5)
        while three.out:
            three.pass_s(1)
    three.pass_s(90)  # takes three off
    three.fail("a0", 5)
    assert three.health.status()["ejected"] == [
        {"agent": "a0", "reason": "consecutive-failures", "for_s": 0.0, "left_s": 30.0, "count": 1}
    ]


def test_what_was_under_way_at_an_ejected_agent_does_not_prolong_it() -> None:
    three = fleet()
    three.fail("a0", 5)
    three.pass_s(29)
    three.fail("a0", 50)
    three.pass_s(1)
    assert three.out == []
    three.fail("a0", 4)
    assert three.out == []


@pytest.mark.parametrize(("size", "most"), [(1, 0), (2, 1), (3, 1), (5, 1), (6, 2), (9, 3), (10, 3)])
def test_at_most_a_third_is_out_at_once(size: int, most: int) -> None:
    some = fleet(size)
    for number in range(size):
        some.fail(f"a{number}", 20)
    assert len(some.out) == most
    assert some.health.status()["spared"]


def test_however_large_the_share_that_may_be_out_one_stays() -> None:
    four = fleet(4, maxEjectedShare=1)
    for number in range(4):
        four.fail(f"a{number}", 20)
    assert four.out == ["a0", "a1", "a2"]


def test_whoever_was_spared_is_ejected_when_there_is_room_and_it_fails_again() -> None:
    three = fleet()
    three.fail("a0", 5)
    three.fail("a1", 5)
    assert three.out == ["a0"]
    three.pass_s(30)
    three.fail("a1", 5)
    assert three.out == ["a1"]


def test_the_last_agent_of_any_of_its_capabilities_stays() -> None:
    mixed = Fleet([agent("a0", "code", "rare"), agent("a1", "code"), agent("a2", "code")])
    mixed.fail("a0", 50)
    assert mixed.out == []
    mixed.fail("a1", 5)
    assert mixed.out == ["a1"]


def test_draining_agents_do_not_count_as_those_that_stay() -> None:
    pair = Fleet([agent("a0"), agent("a1", state=AgentState.DRAINING)])
    pair.fail("a0", 50)
    assert pair.out == []


def test_a_draining_agent_stays_draining() -> None:
    three = fleet()
    three.fail("a0", 5)
    three.follow([agent("a0", state=AgentState.DRAINING), agent("a1"), agent("a2")])
    assert three.as_seen()["a0"].state is AgentState.DRAINING


def test_when_others_leave_an_ejected_agent_comes_back_early() -> None:
    three = fleet()
    three.fail("a0", 5)
    three.follow([agent("a0"), agent("a1")])
    assert three.out == ["a0"]
    three.follow([agent("a0")])
    assert three.out == []


def test_who_goes_and_comes_back_is_still_ejected() -> None:
    three = fleet()
    three.fail("a0", 5)
    three.follow(three.agents[1:])
    three.pass_s(10)
    three.follow([agent("a0"), *three.agents])
    assert three.out == ["a0"]
    three.pass_s(20)
    assert three.out == []


def test_another_agent_by_the_same_name_starts_clean() -> None:
    three = fleet()
    three.fail("a0", 5)
    three.follow([agent("a0", port=9090), *three.agents[1:]])
    assert three.out == []
    three.follow([agent("a0"), *three.agents[1:]])
    assert three.out == ["a0"]


def test_who_is_gone_for_long_is_forgotten() -> None:
    three = fleet()
    three.fail("a0", 5)
    three.follow(three.agents[1:])
    three.pass_s(301)
    three.follow([agent("a0"), *three.agents])
    assert three.out == []


def test_a_success_rate_far_below_the_peers_ejects() -> None:
    six = fleet(6)
    for number in range(6):
        for _ in range(20):
            six.fail(f"a{number}", 2 if number == 3 else 0)
            six.ok(f"a{number}", 3)
    six.pass_s(10)
    assert six.out == ["a3"]
    assert six.health.ejections[Reason.SUCCESS_RATE] == 1


def test_success_rates_are_compared_among_enough_peers_with_enough_packets() -> None:
    for size, packets in ((4, 60), (6, 40)):
        few = fleet(size)
        for number in range(size):
            few.ok(f"a{number}", packets // 2)
            if number == 3:
                for _ in range(packets // 4):
                    few.fail("a3")
                    few.ok("a3")
            else:
                few.ok(f"a{number}", packets // 2)
        few.pass_s(10)
        assert few.out == []


def test_a_rate_slightly_below_very_even_peers_is_no_outlier() -> None:
    ten = fleet(10)
    for number in range(10):
        ten.ok(f"a{number}", 97)
        ten.fail(f"a{number}", 3 if number == 3 else 0)
    ten.pass_s(10)
    assert ten.out == []


def test_a_deadline_that_its_sender_made_too_short_is_not_held_against_the_agent() -> None:
    three = fleet()
    for number in range(3):
        three.ok(f"a{number}", 100, latency_s=4.0)
    three.pass_s(5)
    for _ in range(50):
        three.health.unanswered("a0", 0.001)
        three.health.unanswered("a0", 7.0)
    assert three.out == []
    for _ in range(5):
        three.health.unanswered("a0", 9.0)
    assert three.out == ["a0"]


def test_an_ejected_share_of_nothing_ejects_nobody() -> None:
    three = fleet(maxEjectedShare=0)
    three.fail("a0", 50)
    assert three.out == []


def test_nobody_unknown_is_observed() -> None:
    three = fleet()
    three.fail("stranger", 50)
    three.ok("stranger")
    three.health.unanswered("stranger", 60)
    assert not any(three.health.status().values())


def test_the_status_tells_of_the_first_and_counts_the_rest() -> None:
    many = fleet(900)
    for number in range(300):
        many.fail(f"a{number}", 5)
    status = many.health.status()
    assert status["ejected_agents"] == 300
    assert [each["agent"] for each in status["ejected"]][:2] == ["a0", "a1"]  # type: ignore[attr-defined]
    assert len(status["ejected"]) == 100  # type: ignore[arg-type]
