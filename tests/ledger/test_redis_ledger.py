"""The ledger that replicas share, in a real Redis."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator

import pytest
import redis as client

from gateway.ledger import LedgerSpec, Standing, StoredAnswer
from gateway.ledger.redis_ledger import RedisLedger
from tests.redis_server import RedisServer
from tests.waiting import eventually, free_port

SPEC = LedgerSpec(remember_s="90s", max_answer=1000)
ANSWER = StoredAnswer(
    201, [(b"content-type", b"application/octet-stream")], bytes(range(256)), [(b"flight-usage", b"tokens=8")]
)
Replicas = tuple[RedisLedger, RedisLedger]


@pytest.fixture
async def replicas(redis: RedisServer) -> AsyncIterator[Replicas]:
    async with RedisLedger(redis.url, SPEC, timeout_s=5) as a, RedisLedger(redis.url, SPEC, timeout_s=5) as b:
        yield a, b


async def begin(ledger: RedisLedger, wait_s: float = 0.0, digest: bytes = b"d") -> Standing | StoredAnswer:
    return await ledger.begin(b"k", digest, 0, wait_s)


async def settled(ledger: RedisLedger, under_way: int = 0) -> None:
    """Redis knows of all that has ended."""
    await asyncio.to_thread(eventually, lambda: ledger.entries <= under_way)


def let_leases_end(redis: RedisServer) -> None:
    """Whatever is under way was last heard of long ago."""
    with client.Redis.from_url(redis.url) as store:
        for key in store.scan_iter(b"phoenixflight:ledger:*"):
            store.hset(key, "until", 1)


async def test_what_one_replica_has_done_the_other_answers_byte_for_byte(replicas: Replicas) -> None:
    a, b = replicas
    assert await begin(a) is Standing.BEGUN
    assert [await begin(a), await begin(b)] == [Standing.TWIN, Standing.TWIN]
    assert [await begin(a, digest=b"e"), await begin(b, digest=b"e")] == [Standing.CONFLICT, Standing.CONFLICT]
    assert a.finish(b"k", ANSWER, 0)
    await settled(a)
    for ledger in replicas:
        assert await begin(ledger) == ANSWER
        assert await begin(ledger, digest=b"e") is Standing.CONFLICT


async def test_what_never_reached_an_agent_may_begin_anywhere(replicas: Replicas) -> None:
    a, b = replicas
    assert await begin(a) is Standing.BEGUN
    a.forget(b"k")
    await settled(a)
    assert await begin(b, digest=b"e") is Standing.BEGUN
    assert await begin(a) is Standing.CONFLICT
    # What `a` takes back once more is its own, not what has begun since.
    await a.tell_again(renew=True)
    assert await begin(a, digest=b"e") is Standing.TWIN


async def test_what_is_lost_stays_so_and_is_never_begun_again(replicas: Replicas) -> None:
    a, b = replicas
    assert await begin(a) is Standing.BEGUN
    a.lose(b"k", 0)
    await settled(a)
    assert [await begin(a), await begin(b)] == [Standing.UNKNOWN, Standing.UNKNOWN]


async def test_an_answer_that_is_too_large_is_lost(replicas: Replicas) -> None:
    a, b = replicas
    assert await begin(a) is Standing.BEGUN
    assert not a.finish(b"k", StoredAnswer(200, [], b"x" * 1001), 0)
    await settled(a)
    assert await begin(b) is Standing.UNKNOWN


async def test_of_many_at_once_at_two_replicas_one_begins_and_all_others_get_its_answer(replicas: Replicas) -> None:
    asked = 0

    async def packet(ledger: RedisLedger) -> StoredAnswer:
        nonlocal asked
        found = await begin(ledger, wait_s=10)
        if found is Standing.BEGUN:
            asked += 1
            await asyncio.sleep(0.05)
            ledger.finish(b"k", ANSWER, 0)
            return ANSWER
        assert isinstance(found, StoredAnswer)
        return found

    answers = await asyncio.gather(*(packet(replicas[number % 2]) for number in range(40)))
    assert (asked, answers) == (1, [ANSWER] * 40)


async def test_whatever_the_interleaving_nothing_that_may_have_been_done_begins_again(replicas: Replicas) -> None:
    chance = random.Random(7)
    done: dict[bytes, list[StoredAnswer | None]] = {}

    async def packet(number: int) -> None:
        key, ledger = b"%d" % (number % 10), replicas[chance.randrange(2)]
        found = await ledger.begin(key, b"d", 0, chance.choice([0.0, 0.0, 5.0]))
        if found is Standing.BEGUN:
            await asyncio.sleep(chance.random() / 100)
            how = chance.random()
            if how < 0.3:
                ledger.forget(key)
                return
            answer = StoredAnswer(200, [], b"%d" % number) if how < 0.8 else None
            done.setdefault(key, []).append(answer)
            if answer is not None:
                ledger.finish(key, answer, 0)
            else:
                ledger.lose(key, 0)
        elif found is not Standing.TWIN:
            expected = done[key][0]
            assert found == (expected or Standing.UNKNOWN)

    for _ in range(10):
        await asyncio.gather(*map(packet, range(40)))
    assert {len(answers) for answers in done.values()} == {1}


async def test_a_replica_that_is_gone_leaves_what_it_had_under_way_unknown(
    replicas: Replicas, redis: RedisServer
) -> None:
    a, b = replicas
    assert await begin(a) is Standing.BEGUN
    let_leases_end(redis)
    assert await begin(b) is Standing.UNKNOWN
    # It was only slow: what it tells at last is what is so.
    a.finish(b"k", ANSWER, 0)
    await settled(a)
    assert await begin(b) == ANSWER


async def test_what_is_under_way_is_renewed_by_itself(redis: RedisServer) -> None:
    spec = LedgerSpec(lease_s="1s")
    async with RedisLedger(redis.url, spec, timeout_s=5) as a, RedisLedger(redis.url, spec, timeout_s=5) as b:
        assert await begin(a) is Standing.BEGUN
        let_leases_end(redis)
        running = asyncio.create_task(a.run())
        with client.Redis.from_url(redis.url) as store:
            (key,) = store.keys()
            await asyncio.to_thread(eventually, lambda: int(store.hget(key, "until")) > 1)
        assert await begin(b) is Standing.TWIN
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        a.forget(b"k")


async def test_redis_itself_forgets_after_the_time(replicas: Replicas, redis: RedisServer) -> None:
    a, _ = replicas
    assert await begin(a) is Standing.BEGUN
    with client.Redis.from_url(redis.url) as store:
        (key,) = store.keys()
        assert key.startswith(b"phoenixflight:ledger:")
        assert 90_000 < store.pttl(key) <= 105_000
        a.finish(b"k", ANSWER, 0)
        await settled(a)
        assert 60_000 < store.pttl(key) <= 90_000


async def test_what_redis_lost_while_it_was_under_way_is_told_anew(replicas: Replicas, redis: RedisServer) -> None:
    a, b = replicas
    assert await begin(a) is Standing.BEGUN
    with client.Redis.from_url(redis.url) as store:
        store.flushall()
    await a.tell_again(renew=True)
    assert await begin(b) is Standing.TWIN
    with client.Redis.from_url(redis.url) as store:
        store.flushall()
    a.finish(b"k", ANSWER, 0)
    await settled(a)
    assert await begin(b) == ANSWER


async def test_without_redis_nothing_begins_and_the_log_tells_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway.ledger")
    async with RedisLedger(f"redis://127.0.0.1:{free_port()}/0", SPEC) as ledger:
        for _ in range(3):
            assert await begin(ledger, 1) is Standing.UNAVAILABLE
        assert "onnect" in ledger.trouble
    (told,) = caplog.messages
    assert "are refused" in told


async def test_a_beginning_whose_answer_came_too_late_is_taken_back(redis: RedisServer) -> None:
    async with RedisLedger(redis.url, SPEC, timeout_s=1) as ledger:
        assert await begin(ledger) is Standing.BEGUN
        ledger.forget(b"k")
        await settled(ledger)
        redis.freeze()
        assert await begin(ledger) is Standing.UNAVAILABLE
        redis.thaw()

        async def may_begin() -> bool:
            await ledger.tell_again(renew=False)
            return await begin(ledger) is Standing.BEGUN

        deadline = time.monotonic() + 5
        while not await may_begin():
            assert time.monotonic() < deadline


async def test_how_it_ended_is_told_again_when_redis_comes_back(redis: RedisServer) -> None:
    async with RedisLedger(redis.url, SPEC, timeout_s=1) as ledger:
        assert await begin(ledger) is Standing.BEGUN
        await asyncio.to_thread(redis.stop)
        ledger.finish(b"k", ANSWER, 0)
        waiting = asyncio.create_task(begin(ledger, 20))
        await asyncio.to_thread(redis.start)
        running = asyncio.create_task(ledger.run())
        assert await waiting == ANSWER
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert (ledger.entries, ledger.size) == (0, 0)


async def test_at_its_bounds_nothing_new_begins(redis: RedisServer) -> None:
    async with RedisLedger(redis.url, LedgerSpec(capacity=2), timeout_s=5) as ledger:
        for key in (b"1", b"2"):
            assert await ledger.begin(key, b"d", 0) is Standing.BEGUN
        assert await ledger.begin(b"3", b"d", 0) is Standing.FULL
        ledger.finish(b"1", ANSWER, 0)
        await settled(ledger, 1)
        assert await ledger.begin(b"3", b"d", 0) is Standing.BEGUN
