"""Retries, without sockets: delays, the budget, who asked to be left alone, and what may be done twice."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.messages import RequestHead
from gateway.proxy.retries import (
    CAP_FACTOR,
    MAX_BENCH_S,
    MAX_BENCHED,
    MAX_WAITING,
    Benches,
    RetryBudget,
    backoff_s,
    repeatable,
    retry_after_s,
)

NOW = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the date of RFC 9110's examples


@given(
    st.integers(1, 1000),
    st.floats(0.001, 10),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 100, allow_subnormal=False),  # of the least that can be said there is no three quarters
)
def test_a_delay_is_at_most_ten_base_delays_and_leaves_some_of_the_packets_time(
    retry: int, base_s: float, random: float, left_s: float
) -> None:
    delay_s = backoff_s(retry, base_s, random, left_s)
    assert 0 <= delay_s <= base_s * min(CAP_FACTOR, 2 ** min(retry - 1, 10))
    assert delay_s < left_s or left_s == 0 == delay_s


def test_delays_double_up_to_their_cap() -> None:
    assert [backoff_s(retry, 0.025, 0.5, 100.0) for retry in (1, 2, 3, 4, 5, 6)] == pytest.approx(
        [0.0125, 0.025, 0.05, 0.1, 0.125, 0.125]
    )


@given(
    st.lists(st.sampled_from(["begin", "fail", "end", "give up", "retry ends"])),
    st.integers(0, 100),
    st.integers(0, 5),
)
def test_no_more_retries_are_begun_than_the_budget_allows_and_each_waiting_one_is_granted_once(
    steps: list[str], percent: int, floor: int
) -> None:
    first = 0  # packets at their first agent
    budget = RetryBudget(lambda: first + budget.under_way + budget.waiting, percent=percent, floor=floor)
    waiting: list[object] = []

    def began() -> None:
        assert budget.under_way <= max(floor, percent * (first + budget.under_way) // 100)

    for step in steps:
        if step == "begin":
            first += 1
        elif step == "fail" and first:
            first -= 1
            if budget.take():
                began()
                continue

            def granted() -> None:
                waiting.remove(granted)
                began()

            if budget.wait(granted):
                waiting.append(granted)
            else:
                assert not budget.under_way, "none is under way that could make room"
        elif step == "end" and first:
            first -= 1
        elif step == "give up" and waiting:
            budget.leave(waiting.pop())  # type: ignore[arg-type]
        elif step == "retry ends" and budget.under_way:
            budget.give_back()
        assert budget.waiting == len(waiting)
        assert budget.under_way >= 0


def test_few_packets_have_three_retries_and_many_a_fifth() -> None:
    for active, allowed in ((0, 3), (10, 3), (20, 4), (1000, 200)):
        budget = RetryBudget(lambda active=active: active)  # type: ignore[misc]
        taken = 0
        while budget.take():
            taken += 1
        assert taken == budget.allowed == allowed


def test_those_that_wait_for_the_budget_have_their_turn_in_order_and_are_not_without_number() -> None:
    granted: list[int] = []
    budget = RetryBudget(lambda: 0, floor=1)
    assert budget.take()
    for number in range(MAX_WAITING):
        assert budget.wait(lambda number=number: granted.append(number))  # type: ignore[misc]
    assert not budget.wait(lambda: None)
    budget.give_back()
    budget.give_back()
    assert granted == [0, 1]
    assert budget.under_way == 1


def test_nobody_waits_for_a_budget_that_allows_nothing() -> None:
    budget = RetryBudget(lambda: 100, percent=0, floor=0)
    assert not budget.take()
    assert not budget.wait(lambda: None)


def test_an_agent_that_said_when_is_out_until_then_and_no_longer_than_a_minute() -> None:
    benches = Benches()
    benches.bench("soon", 2.0, now=10.0)
    benches.bench("for-good", 1e9, now=10.0)
    benches.bench("back", 5.0, now=10.0)
    benches.bench("back", 0.0, now=11.0)
    assert set(benches.out(11.0)) == {"soon", "for-good"}
    assert benches.soonest(["for-good", "soon", "another"]) == (12.0, "soon")
    assert set(benches.out(12.0)) == {"for-good"}
    assert not benches.out(10.0 + MAX_BENCH_S)
    assert benches.soonest(["for-good", "soon"]) is None


@given(st.lists(st.tuples(st.integers(0, 2 * MAX_BENCHED), st.floats(0, 100)), max_size=50))
def test_however_many_say_so_the_table_stays_small(more: list[tuple[int, float]]) -> None:
    benches = Benches()
    for number in range(MAX_BENCHED):
        benches.bench(f"agent-{number}", 50.0, now=0.0)
    for number, seconds in more:
        benches.bench(f"agent-{number}", seconds, now=1.0)
        assert len(benches.out(1.0)) <= MAX_BENCHED


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0", 0.0),
        (b"120", 120.0),
        (b"Sun, 06 Nov 1994 08:50:07 GMT", 30.0),
        (b"Sunday, 06-Nov-94 08:50:07 GMT", 30.0),
        (b"Sun Nov  6 08:50:07 1994", 30.0),
        (b"Sun, 06 Nov 1994 08:00:00 GMT", 0.0),
        (b"", None),
        (b"-1", None),
        (b"1.5", None),
        (b"soon", None),
        (b"\xff", None),
        (b"Sun, 06 Nov 99999999999 08:50:07 GMT", None),
        (b"9" * 65, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: bytes, seconds: float | None) -> None:
    assert retry_after_s(value, NOW) == seconds


@given(st.binary(max_size=80))
def test_whatever_retry_after_says_is_no_time_in_the_past(value: bytes) -> None:
    seconds = retry_after_s(value, NOW)
    assert seconds is None or seconds >= 0


@given(st.datetimes(datetime(1995, 1, 1), datetime(2100, 1, 1)))
def test_every_date_is_read_as_it_was_written(when: datetime) -> None:
    when = when.replace(microsecond=0, tzinfo=UTC)
    written = format_datetime(when, usegmt=True).encode()
    assert retry_after_s(written, NOW) == when.timestamp() - NOW


@pytest.mark.parametrize(
    ("method", "fields", "may"),
    [
        (b"GET", [], True),
        (b"PUT", [], True),
        (b"DELETE", [], True),
        (b"POST", [], False),
        (b"PATCH", [], False),
        (b"POST", [(b"idempotency-key", b'"8e03978e-40d5-43dd-bc93-6894a57f9324"')], True),
        (b"POST", [(b"idempotency-key", b"")], False),
        (b"POST", [(b"flight-id", b'"a"')], False),
        (b"CONNECT", [(b"idempotency-key", b'"a"')], False),
    ],
)
def test_what_may_be_done_twice(method: bytes, fields: list[tuple[bytes, bytes]], may: bool) -> None:
    assert repeatable(RequestHead(method, b"https", b"gateway", b"/run", fields)) is may
