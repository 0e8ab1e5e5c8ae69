"""Registrations that replicas share, in a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from gateway.membership.redis_registration import RedisRegistrations
from gateway.membership.registration import Registration
from gateway.membership.registration_store import RegistrationStore, Stored
from gateway.routing import Protocol
from tests.membership.registering import BODY, registering, soon
from tests.redis_server import RedisServer
from tests.waiting import free_port

ONE, OTHER = "spiffe://mesh.local/one", "spiffe://mesh.local/other"


def registration(name: str = "a", owner: str = ONE, **changes: Any) -> Registration:
    whole = Registration(
        name, owner, "127.0.0.1", 80, ("x",), False, 0.5, (), Protocol.H2, "", 30.0, "test/agents", ("*",)
    )
    return msgspec.structs.replace(whole, **changes)


@asynccontextmanager
async def replica(url: str, **options: Any) -> AsyncIterator[RedisRegistrations]:
    """A store that follows Redis; its messages come at once, its full readings hardly ever."""
    store = RedisRegistrations(url, **{"timeout_s": 2.0, "refresh_s": 60.0, "sweep_interval_s": 0.02, **options})
    following = asyncio.create_task(store.run())
    try:
        await soon(lambda: store._epoch is not None or store.trouble)
        yield store
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        await store.close()


@pytest.fixture
async def replicas(redis: RedisServer) -> AsyncIterator[tuple[RedisRegistrations, RedisRegistrations]]:
    async with replica(redis.url) as one, replica(redis.url) as other:
        yield one, other


async def test_a_registration_in_one_replica_is_known_in_the_other(
    replicas: tuple[RedisRegistrations, RedisRegistrations],
) -> None:
    stores: tuple[RegistrationStore, ...] = replicas
    one, other = stores
    heard: list[str] = []
    other.on_change = heard.extend
    assert await one.put(registration()) is Stored.CREATED
    assert one.get("a") == registration()
    await soon(lambda: other.get("a") == registration())
    assert 29 < other.expires_in_s("a") <= 30
    assert await other.put(registration()) is Stored.RENEWED
    assert await other.put(registration(trust=0.4)) is Stored.RENEWED
    await soon(lambda: one.get("a") == registration(trust=0.4))
    assert heard == ["a", "a"], "a renewal is no change"
    assert await one.retire("a", ONE, 30) is Stored.RETIRED
    await soon(lambda: other.get("a") == registration(trust=0.4, draining=True))
    assert await one.put(registration()) is Stored.RENEWED
    await soon(lambda: other.get("a") == registration())
    assert await one.retire("a", ONE, 0) is Stored.RETIRED
    assert one.get("a") is None
    await soon(lambda: other.get("a") is None)
    assert (one.lost, other.lost, one.count, other.count) == (0, 0, 0, 0)


async def test_of_two_principals_who_ask_two_replicas_at_once_one_owns_the_name(
    replicas: tuple[RedisRegistrations, RedisRegistrations],
) -> None:
    one, other = replicas
    for number in range(20):
        name = f"n{number}"
        answers = await asyncio.gather(one.put(registration(name)), other.put(registration(name, OTHER)))
        assert sorted(answer.value for answer in answers) == ["created", "taken"]
        await soon(lambda name=name: one.get(name) == other.get(name) is not None)
        owner = ONE if answers[0] is Stored.CREATED else OTHER
        assert one.get(name) == registration(name, owner)
    assert await one.retire("n0", "spiffe://mesh.local/nobody", 0) is Stored.UNKNOWN
    assert await one.retire("unheard-of", ONE, 0) is Stored.UNKNOWN


async def test_a_lease_that_is_not_renewed_ends_in_every_replica(
    replicas: tuple[RedisRegistrations, RedisRegistrations],
) -> None:
    one, other = replicas
    await one.put(registration(lease_s=0.2))
    await soon(lambda: other.get("a"))
    await soon(lambda: one.get("a") is None and other.get("a") is None)
    assert (one.lost, other.lost) == (1, 1)
    assert await other.put(registration(owner=OTHER)) is Stored.CREATED


async def test_a_renewal_that_another_replica_took_keeps_a_member(
    replicas: tuple[RedisRegistrations, RedisRegistrations],
) -> None:
    one, other = replicas
    await one.put(registration(lease_s=0.3))
    await soon(lambda: other.get("a"))
    for _ in range(10):
        await asyncio.sleep(0.1)
        assert await one.put(registration(lease_s=0.3)) is Stored.RENEWED
        assert other.get("a") is not None
    assert other.lost == 0


async def test_the_bounds_are_those_of_all_replicas(redis: RedisServer) -> None:
    bounds = {"max_registrations": 3, "max_per_principal": 2}
    async with replica(redis.url, **bounds) as one, replica(redis.url, **bounds) as other:
        assert await one.put(registration("a", lease_s=0.3)) is Stored.CREATED
        assert await other.put(registration("b")) is Stored.CREATED
        assert await one.put(registration("c")) is Stored.TOO_MANY
        assert await one.put(registration("c", OTHER)) is Stored.CREATED
        assert await one.put(registration("d", OTHER)) is Stored.FULL
        await soon(lambda: one.get("a") is None)
        assert await one.put(registration("d", OTHER)) is Stored.CREATED
        assert await one.retire("d", OTHER, 0) is Stored.RETIRED
        assert await one.put(registration("e")) is Stored.CREATED


async def test_what_no_message_told_is_found_all_the_same(redis: RedisServer) -> None:
    async with (
        replica(redis.url) as one,
        replica(redis.url, refresh_s=0.1) as other,
        Redis.from_url(redis.url) as client,
    ):
        await one.put(registration())
        await soon(lambda: other.get("a"))
        await client.delete("{phoenixflight:members}:at:a")
        await soon(lambda: other.get("a") is None)
        assert one.get("a") is not None


async def test_a_replica_that_starts_later_knows_what_there_is(redis: RedisServer) -> None:
    async with replica(redis.url) as one:
        for number in range(1200):  # more than are asked for at once
            assert await one.put(registration(f"n{number}", f"{ONE}{number % 20}")) is Stored.CREATED
        async with replica(redis.url) as later:
            await soon(lambda: later.count == 1200)
            assert later.get("n7") == one.get("n7")


async def test_a_redis_that_is_away_takes_nothing_and_gives_nothing(redis: RedisServer) -> None:
    async with replica(redis.url) as one, replica(redis.url) as other:
        await one.put(registration(lease_s=0.2))
        await soon(lambda: other.get("a"))
        await asyncio.to_thread(redis.stop)
        await soon(lambda: one.trouble and other.trouble)
        assert await one.put(registration("b")) is Stored.UNAVAILABLE
        assert await one.retire("a", ONE, 0) is Stored.UNAVAILABLE
        await asyncio.sleep(0.3)  # longer than the lease
        assert one.get("a") == other.get("a") == registration(lease_s=0.2)


async def test_a_redis_that_comes_back_empty_is_told_again_and_names_keep_their_owners(redis: RedisServer) -> None:
    async with replica(redis.url) as one, replica(redis.url) as other:
        changes: list[str] = []
        await one.put(registration())
        await one.put(registration("gone"))
        await one.retire("gone", ONE, 30)
        await soon(lambda: other.get("a") and other.get("gone") == registration("gone", draining=True))
        other.on_change = changes.extend
        await asyncio.to_thread(redis.stop)
        await soon(lambda: one.trouble and other.trouble)
        await asyncio.to_thread(redis.start)
        await soon(lambda: not one.trouble and not other.trouble)
        assert await other.put(registration(owner=OTHER)) is Stored.TAKEN
        assert await one.put(registration()) is Stored.RENEWED
        assert one.get("gone") == registration("gone", draining=True)
        assert (one.lost, other.lost, changes) == (0, 0, [])


async def test_a_redis_that_forgets_while_it_is_connected_is_told_again(redis: RedisServer) -> None:
    async with replica(redis.url) as one, Redis.from_url(redis.url) as client:
        await one.put(registration())
        await client.flushall()
        await one.put(registration("b"))  # which makes it look
        await soon(lambda: one._epoch is not None)
        async with replica(redis.url) as later:
            await soon(lambda: later.count == 2)
        assert one.lost == 0


async def test_a_redis_that_hangs_costs_the_timeout(redis: RedisServer) -> None:
    async with replica(redis.url, timeout_s=0.1) as one:
        await one.put(registration())
        redis.freeze()
        try:
            async with asyncio.timeout(5):
                assert await one.put(registration("b")) is Stored.UNAVAILABLE
            assert one.get("a") is not None
        finally:
            redis.thaw()
        await soon(lambda: not one.trouble)


async def test_a_redis_that_was_never_there_is_a_problem_and_ends_nothing() -> None:
    async with replica(f"redis://127.0.0.1:{free_port()}/0") as one:
        assert "onnect" in one.trouble
        assert await one.put(registration()) is Stored.UNAVAILABLE


async def test_what_another_version_wrote_is_passed_over(redis: RedisServer) -> None:
    async with replica(redis.url, refresh_s=0.1) as one, Redis.from_url(redis.url) as client:
        await one.put(registration())
        await client.set("{phoenixflight:members}:at:a", b'R{"name": 1}', keepttl=True)
        await one.put(registration("b"))
        await asyncio.sleep(0.3)
        assert one.get("a") == registration()


async def test_agents_register_at_one_gateway_and_are_members_of_both(certs: Path, redis: RedisServer) -> None:
    one, other = RedisRegistrations(redis.url), RedisRegistrations(redis.url)
    async with (
        registering(certs, one) as first,
        registering(certs, other) as second,
        first.client() as agent,
        second.client() as same,
    ):
        await soon(lambda: one._epoch and other._epoch)
        assert (await agent.put("/members/executor-1", json=BODY)).status_code == 201
        await soon(lambda: second.source.agents == first.source.agents != {})
        assert (await same.put("/members/executor-1", json=BODY)).status_code == 200
        assert (await same.get("/members/executor-1")).json()["trust"] == 0.9
        await asyncio.to_thread(redis.stop)
        refused = await agent.put("/members/executor-2", json=BODY)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "store of registrations" in refused.json()["detail"]
        assert "registrations" in first.source.problems
        assert set(first.source.agents) == set(second.source.agents) == {"executor-1"}
    await one.close()
    await other.close()
