"""Leases that replicas share, in a real Redis."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import redis as client

from gateway.leases import Fate, LeaseSpec, LeaseTable, Taken, Use
from gateway.leases.redis_leases import RedisLeases
from tests.leases.stage import RedisStage, set_back
from tests.redis_server import RedisServer
from tests.waiting import eventually, free_port

SPEC = LeaseSpec()
CONVERSATIONS = 10_000
AT_ONCE = 500


class Replica:
    """A gateway with a view of its own: which agents its ring chooses from, and what it knows of others."""

    def __init__(self, table: LeaseTable, agents: list[str], seed: int) -> None:
        self.table = table
        self.agents = agents
        self.known: dict[str, Use] = {}
        self.random = random.Random(seed)
        self.owners: dict[int, str] = {}

    def usable(self, owner: str) -> Use:
        return self.known.get(owner, Use.KEEP)

    async def packet(self, conversation: int) -> None:
        wanted = self.agents[conversation % len(self.agents)]
        taken = await self.table.take(b"%d" % conversation, wanted=wanted, usable=self.usable, now=time.time())
        assert taken is not None, self.table.trouble
        self.owners[conversation] = taken.owner

    async def packets(self, of: Iterable[int], midway: Callable[[], None] = lambda: None) -> None:
        """A packet of each conversation, in an order of its own; `midway` is called somewhere within."""
        conversations = list(of)
        self.random.shuffle(conversations)
        turn = self.random.randrange(0, len(conversations), AT_ONCE)
        for start in range(0, len(conversations), AT_ONCE):
            if start == turn:
                midway()
            await asyncio.gather(*map(self.packet, conversations[start : start + AT_ONCE]))

    def lose(self, agent: str) -> Callable[[], None]:
        def lose() -> None:
            self.known[agent] = Use.LOST
            self.agents = [each for each in self.agents if each != agent]

        return lose


@pytest.mark.slow
async def test_two_replicas_agree_on_ten_thousand_conversations_also_while_an_agent_is_lost(redis: RedisServer) -> None:
    async with RedisLeases(redis.url, SPEC, timeout_s=10) as a, RedisLeases(redis.url, SPEC, timeout_s=10) as b:
        one, other = Replica(a, ["x", "y", "z"], 1), Replica(b, ["y", "z", "x", "w"], 2)
        everything = range(CONVERSATIONS)
        await asyncio.gather(one.packets(everything), other.packets(everything))
        assert one.owners == other.owners
        before = dict(one.owners)

        await asyncio.gather(one.packets(everything, one.lose("x")), other.packets(everything, other.lose("x")))
        left = [conversation for conversation, owner in before.items() if owner == "x"]
        assert 0 < len(left) < CONVERSATIONS
        # While the replicas saw it differently, one of them may have found a conversation still at the lost agent.
        await asyncio.gather(one.packets(left), other.packets(left))
        assert one.owners == other.owners
        moved = {conversation for conversation in everything if one.owners[conversation] != before[conversation]}
        assert moved == set(left)


async def test_an_exchange_that_is_open_at_another_replica_keeps_its_conversation_from_being_handed_over(
    redis: RedisServer,
) -> None:
    async with RedisLeases(redis.url, SPEC, timeout_s=5) as a, RedisLeases(redis.url, SPEC, timeout_s=5) as b:
        here, there = (RedisStage(table, SPEC, redis.url) for table in (a, b))
        a.hold(b"c")
        await here.take(b"c", "old")
        here.known["old"] = there.known["old"] = Use.HAND_OVER
        for _ in range(4):
            assert await there.packet(b"c", "new") == Taken("old", 1, Fate.KEPT)
            await here.pass_time(SPEC.idle_s / 3)
        a.release(b"c", here.now)
        # Nothing is open at either; the one that waited has told so, the other is asked next.
        assert await here.packet(b"c", "new") == Taken("new", 2, Fate.FORCED, "old")


async def test_an_exchange_that_was_open_at_another_replica_holds_up_no_longer_than_half_the_idle_time(
    redis: RedisServer,
) -> None:
    async with RedisLeases(redis.url, SPEC, timeout_s=5) as a, RedisLeases(redis.url, SPEC, timeout_s=5) as b:
        here, there = (RedisStage(table, SPEC, redis.url) for table in (a, b))
        a.hold(b"c")
        await here.take(b"c", "old")
        await a.renew()
        there.known["old"] = Use.HAND_OVER
        a.release(b"c", here.now)
        await here.pass_time(SPEC.idle_s * 0.45)
        assert await there.packet(b"c", "new") == Taken("old", 1, Fate.KEPT)
        await here.pass_time(SPEC.idle_s * 0.1)
        assert await there.packet(b"c", "new") == Taken("new", 2, Fate.FORCED, "old")


async def test_packets_that_take_turns_at_two_replicas_do_not_keep_a_conversation_from_being_handed_over(
    redis: RedisServer,
) -> None:
    async with RedisLeases(redis.url, SPEC, timeout_s=5) as a, RedisLeases(redis.url, SPEC, timeout_s=5) as b:
        here, there = (RedisStage(table, SPEC, redis.url) for table in (a, b))
        for stage in (here, there):
            await stage.packet(b"c", "old")
            stage.known["old"] = Use.HAND_OVER
        assert await here.packet(b"c", "new") == Taken("old", 1, Fate.KEPT)
        assert await there.packet(b"c", "new") == Taken("new", 2, Fate.FORCED, "old")


async def test_of_many_who_move_an_idle_conversation_at_once_one_does(redis: RedisServer) -> None:
    async with RedisLeases(redis.url, SPEC, timeout_s=5) as a, RedisLeases(redis.url, SPEC, timeout_s=5) as b:
        stages = [RedisStage(table, SPEC, redis.url) for table in (a, b)]
        await stages[0].packet(b"c", "old")
        await stages[0].pass_idle_time()
        answers = await asyncio.gather(*(stages[number % 2].take(b"c", "new-%d" % number) for number in range(40)))
    assert len({(answer.owner, answer.epoch) for answer in answers}) == 1
    fates = [answer.fate for answer in answers]
    assert fates.count(Fate.MOVED) == 1
    assert fates.count(Fate.KEPT) == 39


@pytest.mark.parametrize("times", [1, 1000])
async def test_who_comes_second_keeps_what_the_other_chose_and_does_not_try_for_ever(
    redis: RedisServer, times: int
) -> None:
    async with RedisLeases(redis.url, SPEC, timeout_s=5) as leases:
        await take(leases, b"c")
        with client.Redis.from_url(redis.url) as store:
            (key,) = store.keys()

            def usable(owner: str) -> Use:
                """Another replica moves the conversation while this one decides."""
                epoch = int(store.hget(key, "epoch"))
                if epoch > times:
                    return Use.KEEP
                store.hset(key, mapping={"owner": "others-%d" % epoch, "epoch": epoch + 1})
                return Use.LOST

            answer = await leases.take(b"c", wanted="two", usable=usable, now=0)
        assert answer == (Taken("others-1", 2, Fate.KEPT) if times == 1 else None)
        assert leases.trouble == ""


async def test_a_lease_is_forgotten_by_redis_itself(redis: RedisServer) -> None:
    spec = LeaseSpec(idle_s="30s", remember_s="90s")
    async with RedisLeases(redis.url, spec, timeout_s=5) as leases:
        stage = RedisStage(leases, spec, redis.url)
        await stage.packet(b"c", "one")
        with client.Redis.from_url(redis.url) as store:
            (key,) = store.keys()
            assert key.startswith(b"phoenixflight:lease:")
            assert 60_000 < store.pttl(key) <= 90_000
            await stage.pass_idle_time()
            assert store.pttl(key) < 60_000
            await stage.packet(b"c", "one")
            assert 60_000 < store.pttl(key) <= 90_000


async def test_what_is_held_is_renewed_by_itself_and_no_other(redis: RedisServer) -> None:
    spec = LeaseSpec(idle_s="60ms")
    async with RedisLeases(redis.url, spec, timeout_s=5) as leases:
        stage = RedisStage(leases, spec, redis.url)
        leases.hold(b"held")
        await stage.take(b"held", "one")
        await stage.take(b"other", "one")
        set_back(redis.url, 600)
        running = asyncio.create_task(leases.run())
        with client.Redis.from_url(redis.url) as store:
            await asyncio.to_thread(eventually, lambda: sorted(store.ttl(key) > 3000 for key in store.scan_iter())[1])
            assert sorted(store.ttl(key) > 3000 for key in store.scan_iter()) == [False, True]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_many_open_exchanges_are_renewed(redis: RedisServer) -> None:
    async with RedisLeases(redis.url, SPEC, timeout_s=10) as leases:
        stage = RedisStage(leases, SPEC, redis.url)
        keys = [b"%d" % number for number in range(600)]
        for key in keys:
            leases.hold(key)
        await asyncio.gather(*(stage.take(key, "one") for key in keys))
        await stage.pass_idle_time()
        answers = await asyncio.gather(*(stage.take(key, "two") for key in keys))
        assert {answer.fate for answer in answers} == {Fate.KEPT}


async def test_what_redis_lost_is_not_made_up_by_a_renewal(redis: RedisServer) -> None:
    async with RedisLeases(redis.url, SPEC, timeout_s=5) as leases:
        stage = RedisStage(leases, SPEC, redis.url)
        leases.hold(b"c")
        await stage.take(b"c", "one")
        with client.Redis.from_url(redis.url) as store:
            store.flushall()
            await leases.renew()
            assert store.dbsize() == 0
        assert await stage.take(b"c", "two") == Taken("two", 1, Fate.NEW)


@asynccontextmanager
async def listening(*tables: RedisLeases) -> AsyncIterator[None]:
    """Each runs, and has heard that it will hear of changes."""
    tasks = [asyncio.create_task(table.run()) for table in tables]
    for number, table in enumerate(tables):
        await until(partial(told, table, b"listening %d" % number))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def told(leases: RedisLeases, key: bytes) -> str:
    """What is gone by for a packet that follows another; empty when it has to ask."""
    return live_at(leases, key) if await take(leases, key) is not None else ""


def live_at(leases: RedisLeases, key: bytes) -> str:
    owner = leases.live_at(key, time.time())
    leases.release(key, time.time())
    return owner


async def asked_about(leases: RedisLeases, key: bytes) -> bool:
    return not live_at(leases, key)


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - Redis gives no other sign
            await asyncio.sleep(0.01)


async def test_a_packet_that_follows_another_need_not_ask_until_a_twelfth_of_the_idle_time_is_over(
    redis: RedisServer,
) -> None:
    now = 0.0
    async with RedisLeases(redis.url, SPEC, timeout_s=5, clock=lambda: now) as leases, listening(leases):
        assert await told(leases, b"c") == "one"
        redis.freeze()
        now += SPEC.idle_s / 12 - 0.01
        assert live_at(leases, b"c") == "one"
        now += 0.01
        assert live_at(leases, b"c") == ""


async def test_who_does_not_run_asks_each_time(redis: RedisServer) -> None:
    async with RedisLeases(redis.url, SPEC, timeout_s=5) as leases:
        assert await told(leases, b"c") == ""


async def test_a_conversation_that_another_replica_moves_is_asked_about(redis: RedisServer) -> None:
    async with (
        RedisLeases(redis.url, SPEC, timeout_s=5) as here,
        RedisLeases(redis.url, SPEC, timeout_s=5) as there,
        listening(here, there),
    ):
        assert await told(here, b"c") == await told(here, b"stays") == "one"
        moved = await there.take(b"c", wanted="two", usable=lambda _: Use.LOST, now=0)
        assert moved == Taken("two", 2, Fate.FORCED, "one")
        await until(partial(asked_about, here, b"c"))
        assert await take(here, b"c") == Taken("two", 2, Fate.KEPT)
        assert live_at(here, b"stays") == "one"


async def test_what_is_known_is_forgotten_when_redis_is_gone_or_silent_and_learnt_again(redis: RedisServer) -> None:
    async with RedisLeases(redis.url, SPEC, timeout_s=0.5) as leases, listening(leases):
        for away, back in ((redis.stop, redis.start), (redis.freeze, redis.thaw)):
            assert await told(leases, b"c") == "one"
            await asyncio.to_thread(away)
            await until(partial(asked_about, leases, b"c"))
            await asyncio.to_thread(back)
            await until(partial(told, leases, b"c"))


async def test_an_exchange_that_began_without_asking_keeps_its_conversation_from_being_handed_over(
    redis: RedisServer,
) -> None:
    now = 0.0
    async with (
        RedisLeases(redis.url, SPEC, timeout_s=5, clock=lambda: now) as a,
        RedisLeases(redis.url, SPEC, timeout_s=5) as b,
        listening(a),
    ):
        here, there = (RedisStage(table, SPEC, redis.url) for table in (a, b))
        await take(a, b"c")
        almost = SPEC.idle_s / 12 - 0.1
        now += almost
        await there.pass_time(almost)
        assert a.live_at(b"c", here.now) == "one"  # and stays open
        there.known["one"] = Use.HAND_OVER
        set_back(redis.url, SPEC.idle_s / 3 - 0.1)  # the next renewal is about to come
        assert await there.packet(b"c", "new") == Taken("one", 1, Fate.KEPT)
        for _ in range(4):
            await here.pass_time(SPEC.idle_s / 3)
            assert await there.packet(b"c", "new") == Taken("one", 1, Fate.KEPT)


async def take(leases: RedisLeases, key: bytes) -> Taken | None:
    return await leases.take(key, wanted="one", usable=lambda _: Use.KEEP, now=0)


async def test_without_redis_there_is_no_answer_and_the_log_tells_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway.leases")
    async with RedisLeases(f"redis://127.0.0.1:{free_port()}/0", SPEC) as leases:
        leases.hold(b"c")
        for _ in range(3):
            assert await take(leases, b"c") is None
            await leases.renew()
        assert "onnect" in leases.trouble
    (told,) = caplog.messages
    assert "the ring alone" in told


async def test_a_redis_that_comes_back_is_used_again(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway.leases")
    async with RedisLeases(redis.url, SPEC, timeout_s=2) as leases:
        assert await take(leases, b"c") == Taken("one", 1, Fate.NEW)
        await asyncio.to_thread(redis.stop)
        assert await take(leases, b"c") is None
        await asyncio.to_thread(redis.start)
        assert await take(leases, b"c") == Taken("one", 1, Fate.NEW)
        assert leases.trouble == ""
    assert len(caplog.messages) == 2


async def test_a_restart_of_redis_that_nobody_noticed_costs_no_answer(redis: RedisServer) -> None:
    async with RedisLeases(redis.url, SPEC, timeout_s=2, max_connections=3) as leases:
        await asyncio.gather(*(take(leases, b"%d" % number) for number in range(600)))
        await asyncio.to_thread(redis.stop)
        await asyncio.to_thread(redis.start)
        for number in range(5):
            assert await take(leases, b"%d" % number) == Taken("one", 1, Fate.NEW)


async def test_a_redis_that_hangs_costs_the_timeout_and_no_answer_is_taken_for_another(redis: RedisServer) -> None:
    async with RedisLeases(redis.url, SPEC, timeout_s=0.2, max_connections=2) as leases:
        assert await take(leases, b"known") == Taken("one", 1, Fate.NEW)
        redis.freeze()
        asked_at = time.monotonic()
        assert await asyncio.gather(*(take(leases, b"lost %d" % number) for number in range(20))) == [None] * 20
        for number in range(2):
            assert await take(leases, b"lost too %d" % number) is None
        assert time.monotonic() - asked_at < 5
        redis.thaw()
        # The answers to the lost questions must not be read as answers to these.
        for number in range(5):
            answers = [
                await leases.take(key, wanted="two", usable=lambda _: Use.KEEP, now=0)
                for key in (b"fresh %d" % number, b"known")
            ]
            assert answers == [Taken("two", 1, Fate.NEW), Taken("one", 1, Fate.KEPT)]
        assert leases.trouble == ""


async def test_a_redis_that_refuses_is_no_answer(redis: RedisServer) -> None:
    async with RedisLeases(redis.url.replace("//", "//nobody:wrong@"), SPEC) as leases:
        assert await take(leases, b"c") is None
        assert leases.trouble


async def test_who_waits_when_leases_are_closed_has_no_answer(redis: RedisServer) -> None:
    leases = RedisLeases(redis.url, SPEC, timeout_s=0.1)
    redis.freeze()
    waiting = asyncio.create_task(take(leases, b"c"))
    await asyncio.sleep(0)
    await leases.close()
    assert await waiting is None
