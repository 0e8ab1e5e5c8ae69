"""Who honours retry-after is left alone; who does not is held, then closed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.overload import Manners, Push
from gateway.overload.manners import CALM_S, GRACE_S, HOLDS_AT_MOST, IGNORED_AT_MOST


@given(st.lists(st.integers(1, 30), max_size=50), st.floats(0, 5))
def test_a_connection_that_waits_as_told_is_never_held(told: list[int], more: float) -> None:
    manners, now = Manners(), 0.0
    for retry_after_s in told:
        assert manners.turned_away(now, retry_after_s) is Push.NOTHING
        now += retry_after_s + more


def test_what_was_on_its_way_when_the_answer_came_is_not_held_against_it() -> None:
    manners = Manners()
    assert {manners.turned_away(number * GRACE_S / 1000, 1) for number in range(999)} == {Push.NOTHING}


def ignore(manners: Manners, now: float) -> Push:
    manners.turned_away(now, 2)
    return [manners.turned_away(now + GRACE_S + number / 1000, 2) for number in range(IGNORED_AT_MOST)][-1]


def test_a_connection_that_goes_on_is_held_then_closed() -> None:
    manners = Manners()
    pushes = []
    for number in range(HOLDS_AT_MOST + 1):
        pushes.append(ignore(manners, number * 3.0))
        manners.forgive()
    assert pushes == [Push.HOLD] * HOLDS_AT_MOST + [Push.CLOSE]


def test_all_is_forgotten_after_a_while() -> None:
    manners = Manners()
    for number in range(3 * HOLDS_AT_MOST):
        assert ignore(manners, number * (CALM_S + 3.0)) is Push.HOLD
        manners.forgive()
