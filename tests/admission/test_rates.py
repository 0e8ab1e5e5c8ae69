"""Token buckets: never more than the rate, never less, against exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission import RateLimiter
from gateway.admission.rates import WAIT_WHEN_FULL_S

rates = st.sampled_from([0.01, 0.3, 1.0, 7.0, 50.0, 1000.0])
bursts = st.integers(1, 20)
EPOCH = 1_700_000_000.0


@given(rates, bursts, st.lists(st.floats(0, 30), min_size=1, max_size=60))
def test_what_is_let_through_is_what_an_exact_bucket_lets_through(rate: float, burst: int, pauses: list[float]) -> None:
    limiter, now = RateLimiter(), EPOCH
    tokens, last = Fraction(burst), Fraction(EPOCH)
    for pause in pauses:
        now += pause
        tokens = min(Fraction(burst), tokens + (Fraction(now) - last) * Fraction(rate))
        last = Fraction(now)
        wait = limiter.take("rule", "subject", rate, burst, now)
        if abs(tokens - 1) > rate * 1e-5:  # nearer than ten microseconds, the clock's rounding may decide
            assert (wait == 0) == (tokens >= 1)
        if wait == 0:
            tokens -= 1
        else:
            assert wait == pytest.approx(float((1 - tokens) / Fraction(rate)), rel=1e-3, abs=1e-3)


@given(rates, bursts, st.lists(st.floats(0, 3), max_size=60))
def test_never_more_than_burst_and_rate_times_time(rate: float, burst: int, pauses: list[float]) -> None:
    limiter, now, passed = RateLimiter(), EPOCH, 0
    for pause in pauses:
        now += pause
        passed += limiter.take("rule", "subject", rate, burst, now) == 0
        assert passed <= burst + rate * (now - EPOCH) + rate * 1e-5


@given(rates, bursts)
def test_who_waits_as_told_is_let_through(rate: float, burst: int) -> None:
    limiter, now = RateLimiter(), EPOCH
    for _ in range(3 * burst):
        now += limiter.take("rule", "subject", rate, burst, now)
    for _ in range(20):
        wait = limiter.take("rule", "subject", rate, burst, now)
        if wait > 0:
            now += wait
            assert limiter.take("rule", "subject", rate, burst, now) == 0


def test_a_burst_passes_at_once_and_the_next_is_told_when() -> None:
    limiter = RateLimiter()
    assert [limiter.take("r", "s", 50, 50, EPOCH) for _ in range(50)] == [0.0] * 50
    assert limiter.take("r", "s", 50, 50, EPOCH) == pytest.approx(0.02)


def test_rules_and_subjects_do_not_share() -> None:
    limiter = RateLimiter()
    assert limiter.take("r", "a", 1, 1, 0) == 0
    assert limiter.take("r", "a", 1, 1, 0) > 0
    assert limiter.take("r", "b", 1, 1, 0) == 0
    assert limiter.take("q", "a", 1, 1, 0) == 0


def test_a_limit_that_is_lowered_holds_at_once() -> None:
    limiter = RateLimiter()
    assert limiter.take("r", "s", 100, 100, 0) == 0
    assert limiter.take("r", "s", 1, 1, 0) == 0
    assert limiter.take("r", "s", 1, 1, 0) > 0


def test_at_capacity_a_new_subject_waits_until_a_bucket_is_full_again() -> None:
    limiter = RateLimiter(capacity=2)
    assert [limiter.take("r", subject, 0.5, 1, 0) for subject in "abc"] == [0.0, 0.0, WAIT_WHEN_FULL_S]
    assert limiter.take("r", "a", 0.5, 1, 1) > 0
    assert limiter.take("r", "c", 0.5, 1, 2) == 0


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 3)), max_size=200))
def test_no_more_buckets_than_the_capacity_and_idle_ones_go(taken: list[tuple[int, float]]) -> None:
    limiter, now = RateLimiter(capacity=10), EPOCH
    for subject, pause in taken:
        now += pause
        limiter.take("r", str(subject), 2, 3, now)
        assert len(limiter) <= 10
    for step in range(10):
        limiter.take("r", "regular", 2, 3, now + 10 + step)
    assert len(limiter) == 1
