"""What a connection may spend, whatever its peer's rhythm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.codec.budget import ALLOWANCES, FloodGuard, Kind

KINDS = st.sampled_from(list(Kind))


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("kind", Kind)
def test_a_flood_is_stopped_at_its_burst_and_says_what_it_was(kind: Kind) -> None:
    guard = FloodGuard(Clock())
    allowed = 0
    while guard.spend(kind):
        allowed += 1
    assert allowed == ALLOWANCES[kind].burst
    assert guard.abuse == ALLOWANCES[kind].abuse


@given(KINDS, st.floats(0.5, 0.99))
def test_a_peer_within_the_rate_is_never_stopped(kind: Kind, share: float) -> None:
    clock = Clock()
    guard = FloodGuard(clock)
    for _ in range(ALLOWANCES[kind].burst + 1000):
        clock.now += 1 / (ALLOWANCES[kind].per_second * share)
        assert guard.spend(kind)


@given(KINDS, st.integers(1, 50))
def test_work_earns_its_share(kind: Kind, batch: int) -> None:
    share = ALLOWANCES[kind].per_work
    guard = FloodGuard(Clock())
    for _ in range(ALLOWANCES[kind].burst // batch):
        guard.work += batch
        for _ in range(int(batch * share)):
            assert guard.spend(kind)
    assert guard.abuse == ""


@given(KINDS, st.lists(st.tuples(st.floats(0, 2), st.integers(0, 5), st.integers(1, 20)), max_size=200))
def test_no_rhythm_gets_more_than_burst_rate_and_share(kind: Kind, steps: list[tuple[float, int, int]]) -> None:
    clock = Clock()
    guard = FloodGuard(clock)
    allowance = ALLOWANCES[kind]
    spent = 0
    for pause, work, count in steps:
        clock.now += pause
        guard.work += work
        if not guard.spend(kind, count):
            break
        spent += count
    ceiling = allowance.burst + (clock.now - 1000) * allowance.per_second + guard.work * allowance.per_work
    assert spent <= ceiling + 1e-6


def test_kinds_do_not_spend_from_each_other() -> None:
    guard = FloodGuard(Clock())
    while guard.spend(Kind.PING):
        pass
    assert guard.spend(Kind.SETTINGS)
