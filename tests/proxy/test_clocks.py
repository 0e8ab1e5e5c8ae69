"""Which silence ends an exchange, and which does not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.clocks import Clocks, Phase, Watch
from gateway.refusal import Reason, Refusal

CLOCKS = Clocks(body_s=10, body_rate=100, response_s=20, idle_s=30)


def look(watch: Watch, now: float, phase: Phase, arrived: int = 0, relayed: int = 0) -> Reason | None:
    refusal = watch.look(now, phase, arrived, relayed)
    return refusal.reason if refusal is not None else None


def test_a_body_that_stops_is_the_callers_fault() -> None:
    watch = Watch(CLOCKS, 0, 0)
    assert look(watch, 0, Phase.UPLOADING, 5000) is None
    assert look(watch, 9, Phase.UPLOADING, 5000) is None
    assert look(watch, 10, Phase.UPLOADING, 5000) is Reason.REQUEST_TIMEOUT


def test_a_body_that_trickles_is_cut_though_it_never_stops() -> None:
    watch = Watch(CLOCKS, 0, 0)
    found = {second: look(watch, second, Phase.UPLOADING, second) for second in range(12)}
    assert {second for second, reason in found.items() if reason} == {11}


@given(st.integers(100, 10_000), st.lists(st.floats(0.1, 9.9), min_size=1, max_size=50))
def test_a_body_at_the_rate_that_is_asked_for_may_take_as_long_as_it_likes(rate: int, pauses: list[float]) -> None:
    watch = Watch(CLOCKS, 0, 0)
    now = 0.0
    for pause in pauses:
        now += pause
        assert look(watch, now, Phase.UPLOADING, int(now * rate) + 1) is None


def test_an_agent_that_does_not_answer_has_its_time_from_the_last_of_the_body() -> None:
    watch = Watch(CLOCKS, 0, 0)
    assert look(watch, 8, Phase.UPLOADING, 1000) is None
    assert look(watch, 9, Phase.ASKED, 1200) is None
    assert look(watch, 28, Phase.ASKED, 1200) is None
    assert look(watch, 29, Phase.ASKED, 1200) is Reason.DEADLINE_EXCEEDED


@given(st.lists(st.floats(0.1, 29.9), max_size=100), st.booleans())
def test_a_live_stream_lives_on(pauses: list[float], upwards: bool) -> None:
    watch = Watch(CLOCKS, 0, 0)
    now, moved = 0.0, 0
    for pause in pauses:
        now, moved = now + pause, moved + 1
        assert look(watch, now, Phase.OPEN, *((moved, 0) if upwards else (0, moved))) is None


def test_a_stream_on_which_nothing_moves_ends() -> None:
    watch = Watch(CLOCKS, 0, 0)
    assert look(watch, 1, Phase.OPEN, 7, 7) is None
    assert look(watch, 30.5, Phase.OPEN, 7, 7) is None
    assert look(watch, 31, Phase.OPEN, 7, 7) is Reason.DEADLINE_EXCEEDED


def test_a_ceiling_ends_a_live_stream_too() -> None:
    watch = Watch(Clocks(ceiling_s=60), 0, 0)
    assert [look(watch, second, Phase.OPEN, 0, second) for second in (1, 59)] == [None, None]
    found = watch.look(60, Phase.OPEN, 0, 60)
    assert isinstance(found, Refusal)
    assert "60 s" in found.detail


def test_signs_of_life_are_due_in_silence_only() -> None:
    watch = Watch(Clocks(keep_alive_s=10), 0, 0)
    spoken = []
    for second in range(1, 41):
        watch.look(second, Phase.OPEN, 0, 5 if second >= 5 else 1)
        if watch.speak(second):
            spoken.append(second)
    assert spoken == [15, 25, 35]


def test_without_a_time_for_them_there_are_no_signs_of_life() -> None:
    assert not Watch(Clocks(), 0, 0).speak(10_000)
