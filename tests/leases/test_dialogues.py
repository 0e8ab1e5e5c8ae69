"""Where a conversation is, packet by packet: the same in this process and in a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from gateway.leases import Fate, LeaseMemory, LeaseSpec, Taken, Use
from gateway.leases.redis_leases import RedisLeases
from tests.leases.stage import RedisStage, Stage

NEW, SAME, KEPT, HELD, MOVED, FORCED = Fate.NEW, Fate.SAME, Fate.KEPT, Fate.HELD, Fate.MOVED, Fate.FORCED


@pytest.fixture(params=["memory", "redis"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Callable[[LeaseSpec], Stage]]:
    made: list[RedisLeases] = []

    def make(spec: LeaseSpec) -> Stage:
        if request.param == "memory":
            return Stage(LeaseMemory(spec), spec)
        made.append(RedisLeases(server.url, spec, timeout_s=5))
        return RedisStage(made[-1], spec, server.url)

    if request.param == "redis":
        server = request.getfixturevalue("redis")
    yield make
    for leases in made:
        await leases.close()


@pytest.fixture
def stage(make: Callable[[LeaseSpec], Stage]) -> Stage:
    return make(LeaseSpec())


async def test_a_conversation_begins_at_the_rings_choice_and_stays_when_the_ring_would_choose_another(
    stage: Stage,
) -> None:
    assert await stage.packet(b"c", "one") == Taken("one", 1, NEW)
    assert await stage.packet(b"c", "one") == Taken("one", 1, SAME)
    assert await stage.packet(b"c", "two") == Taken("one", 1, KEPT)
    assert await stage.packet(b"another", "two") == Taken("two", 1, NEW)


async def test_each_packet_renews_the_lease(stage: Stage) -> None:
    await stage.packet(b"c", "one")
    for _ in range(4):
        await stage.pass_time(stage.spec.idle_s * 2 / 3)
        assert await stage.packet(b"c", "two") == Taken("one", 1, KEPT)


async def test_an_idle_conversation_moves_to_the_rings_choice(stage: Stage) -> None:
    await stage.packet(b"c", "one")
    await stage.pass_idle_time()
    assert await stage.packet(b"c", "two") == Taken("two", 2, MOVED, "one")
    assert await stage.packet(b"c", "one") == Taken("two", 2, KEPT)


async def test_an_idle_conversation_stays_where_the_ring_agrees(stage: Stage) -> None:
    await stage.packet(b"c", "one")
    await stage.pass_idle_time()
    assert await stage.packet(b"c", "one") == Taken("one", 1, SAME)
    assert await stage.packet(b"c", "two") == Taken("one", 1, KEPT)


async def test_idle_conversations_move_at_a_rate_and_the_others_stay_and_are_live_again(
    make: Callable[[LeaseSpec], Stage],
) -> None:
    stage = make(LeaseSpec(moves_per_s=3))
    keys = [b"%d" % number for number in range(5)]
    for key in keys:
        await stage.packet(key, "one")
    await stage.pass_idle_time()
    assert [(await stage.packet(key, "two")).fate for key in keys] == [MOVED, MOVED, MOVED, HELD, HELD]
    assert await stage.packet(keys[4], "two") == Taken("one", 1, KEPT)
    await stage.pass_idle_time()
    assert await stage.packet(keys[4], "two") == Taken("two", 2, MOVED, "one")


async def test_a_conversation_leaves_an_agent_that_is_lost_at_once_whatever_the_rate(
    make: Callable[[LeaseSpec], Stage],
) -> None:
    stage = make(LeaseSpec(moves_per_s=0.001))
    stage.known["one"] = Use.LOST
    for key in (b"a", b"b", b"c"):
        await stage.packet(key, "one")
        assert await stage.packet(key, "two") == Taken("two", 2, FORCED, "one")
    stage.known["two"] = Use.LOST
    await stage.pass_idle_time()
    assert await stage.packet(b"a", "three") == Taken("three", 3, FORCED, "two")


async def test_a_draining_agent_keeps_its_conversations_until_they_are_idle(stage: Stage) -> None:
    await stage.packet(b"c", "one")
    stage.known["one"] = Use.LEAVE
    assert await stage.packet(b"c", "two") == Taken("one", 1, KEPT)
    await stage.pass_idle_time()
    assert await stage.packet(b"c", "two") == Taken("two", 2, FORCED, "one")


async def test_a_live_conversation_leaves_an_agent_that_hands_over_with_its_next_packet(stage: Stage) -> None:
    await stage.packet(b"c", "one")
    stage.known["one"] = Use.HAND_OVER
    assert await stage.packet(b"c", "one") == Taken("one", 1, SAME)
    assert await stage.packet(b"c", "two") == Taken("two", 2, FORCED, "one")
    assert await stage.packet(b"c", "three") == Taken("two", 2, KEPT)


async def test_an_open_exchange_keeps_its_conversation_at_an_agent_that_hands_over(stage: Stage) -> None:
    stage.table.hold(b"c")
    await stage.take(b"c", "one")
    stage.known["one"] = Use.HAND_OVER
    for _ in range(2):
        assert await stage.packet(b"c", "two") == Taken("one", 1, KEPT)
        await stage.pass_idle_time()
    stage.table.release(b"c", stage.now)
    assert await stage.packet(b"c", "two") == Taken("two", 2, FORCED, "one")


async def test_a_conversation_is_forgotten_long_after_its_last_packet(stage: Stage) -> None:
    await stage.packet(b"c", "one")
    await stage.pass_time(stage.spec.remember_s - 1)
    stage.known["one"] = Use.LEAVE
    assert await stage.packet(b"c", "two") == Taken("two", 2, FORCED, "one")
    await stage.pass_time(stage.spec.remember_s + 1)
    assert await stage.packet(b"c", "three") == Taken("three", 1, NEW)


async def test_an_open_exchange_keeps_its_lease_live_and_the_last_to_end_lets_go(stage: Stage) -> None:
    stage.table.hold(b"c")
    await stage.take(b"c", "one")
    stage.table.hold(b"c")
    await stage.take(b"c", "one")
    stage.table.release(b"c", stage.now)
    for _ in range(20):
        await stage.pass_idle_time()
    assert await stage.packet(b"c", "two") == Taken("one", 1, KEPT)
    for _ in range(20):
        await stage.pass_idle_time()
    stage.table.release(b"c", stage.now)
    assert await stage.packet(b"c", "two") == Taken("one", 1, KEPT)
    await stage.pass_idle_time()
    await stage.pass_idle_time()
    assert await stage.packet(b"c", "two") == Taken("two", 2, MOVED, "one")


async def test_what_became_of_packets_is_counted(stage: Stage) -> None:
    for wanted in ("one", "one", "two", "two"):
        await stage.packet(b"c", wanted)
    await stage.pass_idle_time()
    await stage.packet(b"c", "two")
    stage.known["two"] = Use.LOST
    await stage.packet(b"c", "three")
    assert dict(stage.table.counts) == {NEW: 1, SAME: 1, KEPT: 2, HELD: 0, MOVED: 1, FORCED: 1}
