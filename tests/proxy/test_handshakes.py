"""Addresses are held to their bounds, and strangers' handshakes have their turns one after the other."""

from __future__ import annotations

import asyncio
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.handshakes import BURST_S, MAX_SILENT_ADDRESSES, ArrivalLimits, Arrivals, HandshakeQueue, site

LIMITS = ArrivalLimits(
    max_connections=6, max_connections_per_address=4, max_handshakes_per_address=2, handshakes_per_second=2
)
ADDRESSES = st.sampled_from(["192.0.2.1", "192.0.2.2", "192.0.2.3"])
STEPS = st.lists(st.tuples(st.sampled_from(["come", "shake", "go"]), ADDRESSES, st.floats(0, 2)), max_size=60)


@given(STEPS, st.booleans())
def test_no_address_has_more_than_its_share_and_whoever_is_refused_takes_nothing(
    steps: list[tuple[str, str, float]], handshakes: bool
) -> None:
    arrivals = Arrivals(LIMITS, handshakes=handshakes)
    held: list[tuple[str, bool]] = []
    let_in: list[tuple[str, float]] = []
    now = 0.0
    for what, address, later in steps:
        now += later
        mine = [each for each in held if each[0] == address]
        if what == "come":
            reason = arrivals.admit(address, now)
            shaking = sum(each[1] for each in mine)
            if reason == "too-many-connections":
                assert len(held) == LIMITS.max_connections or len(mine) == LIMITS.max_connections_per_address
            elif not reason:
                held.append((address, handshakes))
                let_in.append((address, now))
                assert len(held) <= LIMITS.max_connections
                assert len(mine) < LIMITS.max_connections_per_address
                assert shaking < LIMITS.max_handshakes_per_address or not handshakes
            else:
                assert reason == "too-many-handshakes"
                assert handshakes
        elif what == "shake" and (address, True) in mine:
            held[held.index((address, True))] = (address, False)
            arrivals.shaken(address)
        elif what == "go" and mine:
            held.remove(mine[0])
            arrivals.left(address, shaking=mine[0][1])
    if handshakes:
        for address, _ in let_in:
            times = [at for one, at in let_in if one == address]
            allowed = LIMITS.handshakes_per_second * (times[-1] - times[0] + BURST_S) + 1
            assert len(times) <= allowed


def test_an_address_that_comes_and_goes_uses_up_its_rate_all_the_same() -> None:
    arrivals = Arrivals(LIMITS, handshakes=True)

    def come_and_go(now: float) -> str:
        reason = arrivals.admit("192.0.2.1", now)
        if not reason:
            arrivals.left("192.0.2.1", shaking=True)
        return reason

    burst = int(LIMITS.handshakes_per_second * BURST_S)
    assert [come_and_go(0) for _ in range(burst + 1)] == [""] * burst + ["too-many-handshakes"]
    assert [come_and_go(1) for _ in range(3)] == ["", "", "too-many-handshakes"]


def test_addresses_that_are_gone_are_forgotten_in_the_end() -> None:
    arrivals = Arrivals(LIMITS, handshakes=True)
    for number in range(MAX_SILENT_ADDRESSES + 100):
        assert not arrivals.admit(str(number), 0)
        arrivals.left(str(number), shaking=True)
    assert len(arrivals._silent) == MAX_SILENT_ADDRESSES
    assert not arrivals._addresses


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8::1", "2001:db8::ffff:1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::2%eth0"),
    ],
)
def test_whoever_has_many_addresses_of_a_network_is_one(one: str, other: str) -> None:
    assert site(one) == site(other)
    assert site("2001:db8:0:1::1") != site("2001:db8:0:2::1")


class Step:
    """A connection whose step takes a while."""

    def __init__(self, site: str, taken: list[str], clock: list[float]) -> None:
        self.site = site
        self._taken = taken
        self._clock = clock

    def shake(self) -> None:
        self._taken.append(self.site)
        self._clock[0] += 0.0006


async def test_a_few_steps_are_taken_in_each_turn_of_the_loop_and_a_flood_waits_behind_the_others() -> None:
    loop = asyncio.get_running_loop()
    taken: list[str] = []
    now = [0.0]
    queue = HandshakeQueue(loop, lambda: now[0])
    for _ in range(50):
        queue.put(Step("flood", taken, now))
    for _ in range(2):
        queue.put(Step("polite", taken, now))
    turns = []
    while len(taken) < 52:
        before = len(taken)
        await asyncio.sleep(0)
        turns.append(len(taken) - before)
    assert max(turns) == 2
    assert taken[:4] == ["flood", "polite", "flood", "polite"]
    assert [site for site, _ in groupby(taken[4:])] == ["flood"]
