"""A flood of refusals does not fill the access log, and nothing goes untold."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from gateway.handoff import Handoff, Outcome
from gateway.telemetry.flood import MAX_FIRSTS, MAX_TOLD, Flood
from gateway.telemetry.suppressed import Suppressed

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def refused(caller: str = "mallory", reason: str = "denied-by-policy") -> Handoff:
    return Handoff(NOW, Outcome.REFUSED, caller=caller, reason=reason)


COMPLETED = Handoff(NOW, Outcome.COMPLETED, caller="planner")


def test_so_many_refusals_a_second_get_lines_and_the_others_one_line() -> None:
    flood = Flood(most=1000, most_refused=10)
    assert sum(flood.admits(refused(), at / 1000) for at in range(1000)) == 10
    assert flood.admits(COMPLETED, 0.9995)
    told = flood.told(NOW)
    assert told is not None
    assert told.suppressed == 990
    assert [(each.outcome, each.reason, each.caller, each.count) for each in told.kinds] == [
        ("refused", "denied-by-policy", "mallory", 990)
    ]
    assert flood.told(NOW) is None
    assert flood.suppressed[Outcome.REFUSED] == 990
    assert flood.admits(refused(), 1.001)


def test_one_caller_s_flood_does_not_hide_the_refusal_of_another() -> None:
    flood = Flood(most=1000, most_refused=10)
    for _ in range(500):
        flood.admits(refused(), 0.5)
    assert flood.admits(refused("planner"), 0.6)
    assert flood.admits(refused("mallory", "malformed-packet"), 0.6)
    assert not flood.admits(refused("planner"), 0.6)
    callers = sum(flood.admits(refused(f"made-up-{number}"), 0.7) for number in range(1000))
    assert callers == MAX_FIRSTS - 2


def test_lines_of_what_completes_are_bounded_too() -> None:
    flood = Flood(most=100, most_refused=10)
    assert sum(flood.admits(COMPLETED, 0.1) for _ in range(300)) == 100
    assert flood.suppressed[Outcome.COMPLETED] == 200


def test_a_line_that_tells_of_many_names_those_that_are_most() -> None:
    flood = Flood(most=1000, most_refused=1)
    for _ in range(5):
        flood.admits(refused("busy"), 0.0)
    for number in range(5000):
        flood.admits(refused(f"caller-{number}"), 0.0)
    told = flood.told(NOW)
    assert told is not None
    assert told.kinds[0].caller == "busy"
    assert len(told.kinds) == MAX_TOLD
    _adds_up(told)


handoffs = st.builds(
    Handoff,
    time=st.just(NOW),
    outcome=st.sampled_from([outcome for outcome in Outcome if outcome is not Outcome.OPEN]),
    caller=st.text(max_size=2),
    reason=st.sampled_from(["", "denied-by-policy", "overloaded"]),
)


@given(st.lists(st.tuples(handoffs, st.floats(0, 0.3)), max_size=200), st.integers(1, 20), st.integers(1, 5))
def test_each_handoff_is_a_line_or_counted_in_one(
    steps: list[tuple[Handoff, float]], most: int, most_refused: int
) -> None:
    flood, now, lines, told = Flood(most, most_refused), 0.0, 0, 0
    for handoff, pause in steps:
        now += pause
        lines += flood.admits(handoff, now)
    summary = flood.told(NOW)
    if summary is not None:
        _adds_up(summary)
        told = summary.suppressed
    assert lines + told == len(steps)
    assert told == sum(flood.suppressed.values())
    assert lines <= (now // 1 + 1) * (most + MAX_FIRSTS)


def _adds_up(told: Suppressed) -> None:
    assert told.suppressed == told.others + sum(each.count for each in told.kinds)
