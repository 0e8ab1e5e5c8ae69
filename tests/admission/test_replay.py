"""Each key once within its lifetime, against a plain dictionary."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from gateway.admission import Admission, ReplayGuard, ReplayMemory
from gateway.admission.calendar import Calendar

FRESH, SEEN, FULL = Admission.FRESH, Admission.SEEN, Admission.FULL

steps = st.lists(
    st.tuples(
        st.integers(0, 6).map(lambda number: b"%d" % number),
        st.floats(-3, 5).map(lambda seconds: round(seconds, 2)),
        st.floats(-1, 8).map(lambda seconds: round(seconds, 2)),
    ),
    max_size=60,
)
"""Keys, how far the clock moves (now and then backwards), and how long each key lives."""


class NaiveMemory:
    """Looks at every key every time."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.until: dict[bytes, float] = {}
        self.latest = -math.inf

    def admit(self, key: bytes, now: float, until: float) -> Admission:
        self.latest = max(self.latest, now)
        self.until = {each: end for each, end in self.until.items() if end > self.latest}
        if until <= self.latest or key in self.until:
            return SEEN
        if len(self.until) >= self.capacity:
            return FULL
        self.until[key] = math.ceil(until)
        return FRESH


@given(steps, st.integers(1, 8))
def test_the_memory_answers_as_one_that_looks_at_everything(
    taken: list[tuple[bytes, float, float]], capacity: int
) -> None:
    memory, naive = ReplayMemory(capacity), NaiveMemory(capacity)
    now = 1_700_000_000.0
    for key, moved, lifetime in taken:
        now += moved
        assert memory.admit_now(key, now, now + lifetime) is naive.admit(key, now, now + lifetime)


async def test_the_memory_is_a_replay_guard() -> None:
    guard: ReplayGuard = ReplayMemory()
    assert await guard.admit(b"n", 0, 300) is FRESH
    assert await guard.admit(b"n", 299, 599) is SEEN


def test_a_key_is_new_again_when_its_time_is_over() -> None:
    memory = ReplayMemory()
    answers = [memory.admit_now(b"n", now, now + 10) for now in (0, 9.9, 10, 19.9, 20)]
    assert answers == [FRESH, SEEN, FRESH, SEEN, FRESH]


def test_a_clock_that_is_set_back_does_not_make_a_key_new() -> None:
    memory = ReplayMemory()
    assert memory.admit_now(b"n", 0, 10) is FRESH
    assert memory.admit_now(b"other", 50, 60) is FRESH
    assert memory.admit_now(b"n", 5, 10) is SEEN


def test_a_full_memory_refuses_new_keys_and_forgets_none_that_lives() -> None:
    memory = ReplayMemory(3)
    assert [memory.admit_now(key, 0, 10) for key in (b"a", b"b", b"c", b"d")] == [FRESH, FRESH, FRESH, FULL]
    assert [memory.admit_now(key, 9, 19) for key in (b"a", b"b", b"c", b"d")] == [SEEN, SEEN, SEEN, FULL]
    assert memory.admit_now(b"d", 10, 20) is FRESH


def test_the_memory_shrinks_again_with_traffic() -> None:
    memory = ReplayMemory()
    for number in range(1000):
        memory.admit_now(b"burst %d" % number, 0, 10)
    for number in range(400):
        memory.admit_now(b"later %d" % number, 10, 20)
    assert len(memory) == 400


@given(st.lists(st.tuples(st.integers(), st.floats(-100, 100))), st.floats(-100, 100))
def test_a_calendar_gives_what_is_due_and_no_more(entries: list[tuple[int, float]], now: float) -> None:
    calendar: Calendar[int] = Calendar()
    for item, due in entries:
        assert calendar.add(item, due) == math.ceil(due)
    taken = []
    while (item := calendar.take(now)) is not None:
        taken.append(item)
    assert sorted(taken) == sorted(item for item, due in entries if math.ceil(due) <= now)
