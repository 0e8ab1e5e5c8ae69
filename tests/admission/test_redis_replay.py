"""Replay memory that replicas share, in a real Redis."""

from __future__ import annotations

import asyncio
import time

from gateway.admission import Admission, ReplayGuard
from gateway.admission.redis_replay import RedisReplay
from tests.redis_server import RedisServer
from tests.waiting import free_port

FRESH, SEEN, UNAVAILABLE = Admission.FRESH, Admission.SEEN, Admission.UNAVAILABLE


async def test_two_replicas_admit_a_key_once_between_them(redis: RedisServer) -> None:
    async with RedisReplay(redis.url) as one, RedisReplay(redis.url) as other:
        guards: list[ReplayGuard] = [one, other]
        now = time.time()
        assert await guards[0].admit(b"nonce", now, now + 60) is FRESH
        assert await guards[1].admit(b"nonce", now, now + 60) is SEEN
        assert await guards[1].admit(b"another", now, now + 60) is FRESH


async def test_of_many_who_ask_at_once_one_is_admitted(redis: RedisServer) -> None:
    async with RedisReplay(redis.url, timeout_s=5, max_connections=2) as replay:
        answers = await asyncio.gather(*(replay.admit(b"nonce", 0, 60) for _ in range(50)))
    assert sorted(answer.value for answer in answers) == ["fresh", *["seen"] * 49]


async def test_a_key_is_new_again_when_its_time_is_over(redis: RedisServer) -> None:
    async with RedisReplay(redis.url) as replay:
        assert await replay.admit(b"nonce", 1000.0, 1000.05) is FRESH
        deadline = time.monotonic() + 5
        while await replay.admit(b"nonce", 1000.0, 1060.0) is not FRESH:
            assert time.monotonic() < deadline


async def test_a_key_whose_time_is_over_is_never_new(redis: RedisServer) -> None:
    async with RedisReplay(redis.url) as replay:
        assert await replay.admit(b"nonce", 1000.0, 1000.0) is SEEN


async def test_without_redis_nothing_is_admitted_and_the_reason_is_told() -> None:
    async with RedisReplay(f"redis://127.0.0.1:{free_port()}/0") as replay:
        assert await replay.admit(b"nonce", 0, 60) is UNAVAILABLE
        assert "onnect" in replay.trouble


async def test_a_redis_that_comes_back_is_used_again(redis: RedisServer) -> None:
    async with RedisReplay(redis.url, timeout_s=2) as replay:
        assert await replay.admit(b"before", 0, 60) is FRESH
        redis.stop()
        assert await replay.admit(b"during", 0, 60) is UNAVAILABLE
        redis.start()
        assert await replay.admit(b"after", 0, 60) is FRESH
        assert replay.trouble == ""


async def test_a_restart_of_redis_that_nobody_noticed_costs_no_answer(redis: RedisServer) -> None:
    async with RedisReplay(redis.url, timeout_s=2) as replay:
        await asyncio.gather(*(replay.admit(b"before %d" % number, 0, 60) for number in range(5)))
        await asyncio.to_thread(redis.stop)
        await asyncio.to_thread(redis.start)
        for number in range(5):
            assert await replay.admit(b"after %d" % number, 0, 60) is FRESH


async def test_a_redis_that_hangs_costs_the_timeout_and_no_answer_is_taken_for_another(redis: RedisServer) -> None:
    async with RedisReplay(redis.url, timeout_s=0.1, max_connections=2) as replay:
        assert await replay.admit(b"known", 0, 60) is FRESH
        redis.freeze()
        asked_at = time.monotonic()
        for number in range(5):
            assert await replay.admit(b"lost %d" % number, 0, 60) is UNAVAILABLE
        assert time.monotonic() - asked_at < 5
        redis.thaw()
        # The answers to the lost questions must not be read as answers to these.
        for number in range(5):
            assert await replay.admit(b"fresh %d" % number, 0, 60) is FRESH
            assert await replay.admit(b"known", 0, 60) is SEEN


async def test_a_redis_that_refuses_is_no_yes(redis: RedisServer) -> None:
    async with RedisReplay(redis.url.replace("//", "//nobody:wrong@")) as replay:
        assert await replay.admit(b"nonce", 0, 60) is UNAVAILABLE
        assert replay.trouble
