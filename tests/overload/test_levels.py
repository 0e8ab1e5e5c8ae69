"""From readings to levels: up at once, down only when it is well below."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.overload import Level
from gateway.overload.levels import HYSTERESIS, LAG_STEPS, MEMORY_STEPS, next_level, smoothed

shares = st.floats(0, 2)
steps = st.sampled_from([LAG_STEPS, MEMORY_STEPS])


def test_memory_that_runs_out_takes_away_keep_alive_then_requests_then_connections() -> None:
    level = Level.NORMAL
    seen = []
    for share in (0.5, 0.81, 0.91, 0.96, 0.92, 0.89, 0.84, 0.76, 0.74):
        level = next_level(level, share, MEMORY_STEPS)
        seen.append(level.value)
    assert seen == [0, 1, 2, 3, 3, 2, 1, 1, 0]


@given(st.sampled_from(Level), shares, steps)
def test_the_same_reading_again_changes_nothing(level: Level, share: float, at: tuple[float, ...]) -> None:
    once = next_level(level, share, at)
    assert next_level(once, share, at) is once


@given(st.sampled_from(Level), shares, steps)
def test_it_is_never_below_what_the_reading_says_nor_above_by_more_than_the_hysteresis(
    level: Level, share: float, at: tuple[float, ...]
) -> None:
    found = next_level(level, share, at)
    assert found >= sum(share >= step for step in at)
    assert found <= sum(share + HYSTERESIS >= step - 1e-9 for step in at)


def test_a_single_hiccup_of_a_second_does_not_stop_keep_alive() -> None:
    assert next_level(Level.NORMAL, smoothed(0.0, 1.0) / 2.0, LAG_STEPS) is Level.NORMAL
