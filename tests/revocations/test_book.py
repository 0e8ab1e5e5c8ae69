"""The book of what is revoked: documents and orders together, over restarts and over the loss of Redis."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.authority import Kind, Revocations
from gateway.authority.revocations import Entry
from gateway.documents import DocumentError
from gateway.revocations import Book, MemoryOrders, OrderError, load_entries
from gateway.revocations.keep import NOTHING_KEPT, Kept, read_kept
from gateway.revocations.orders import MAX_ORDERS
from gateway.revocations.redis_orders import RedisOrders
from tests.redis_server import RedisServer

TASK = Entry(Kind.TASK, "t-1", 2_000.0, "why", "alice")
LASTING = Entry(Kind.CONVERSATION, "c-1", who="bob")

DOCUMENT = """
apiVersion: phoenixflight.io/v1
kind: Revocations
metadata: {name: incident}
spec:
  revoked:
    - {kind: principal, value: spiffe://mesh.local/ns/agents/sa/coder, why: its key has leaked}
    - {kind: task, value: t-1, until: "2026-12-01T00:00:00Z"}
"""


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def replica(redis: RedisServer, kept: Kept = NOTHING_KEPT) -> RedisOrders:
    return RedisOrders(redis.url, kept, timeout_s=2.0, wall_clock=Clock())


async def test_what_is_ordered_and_what_is_listed_hold_together_and_each_change_is_told_once() -> None:
    told: list[Revocations] = []
    book = Book(MemoryOrders(), Clock(), told.append)
    book.list((LASTING,))
    book.list((LASTING,))
    await book.put(TASK)
    assert [len(each.entries) for each in told] == [1, 2]
    assert book.counts() == {**dict.fromkeys(Kind, 0), Kind.TASK: 1, Kind.CONVERSATION: 1}
    await book.take_back(Kind.TASK, "t-1")
    with pytest.raises(OrderError, match="bob revokes it"):
        await book.take_back(Kind.CONVERSATION, "c-1")
    with pytest.raises(OrderError, match="no operator"):
        await book.take_back(Kind.TASK, "t-1")
    assert book.current.entries == (LASTING,)


async def test_orders_outlive_a_restart_until_they_end(tmp_path: Path) -> None:
    file, clock = tmp_path / "kept.json", Clock()
    book = Book(MemoryOrders(read_kept(file)), clock, lambda _: None, keep=file)
    await book.put(TASK)
    await book.put(LASTING)
    again = Book(MemoryOrders(read_kept(file)), clock, lambda _: None, keep=file)
    assert set(again.current.entries) == {TASK, LASTING}
    clock.now = TASK.until
    assert Book(MemoryOrders(read_kept(file)), clock, lambda _: None).current.entries == (LASTING,)
    file.write_text("[")
    with pytest.raises(ValueError, match="not what a gateway keeps"):
        read_kept(file)


async def test_what_cannot_be_kept_is_in_force_all_the_same_and_told(tmp_path: Path) -> None:
    book = Book(MemoryOrders(), Clock(), lambda _: None, keep=tmp_path / "nowhere" / "kept.json")
    await book.put(TASK)
    assert book.current.entries == (TASK,)
    assert "cannot be written" in book.trouble


async def test_there_is_a_bound_and_whoever_meets_it_is_told() -> None:
    book = Book(MemoryOrders(Kept(tuple(Entry(Kind.TASK, str(n)) for n in range(MAX_ORDERS)))), Clock(), lambda _: None)
    with pytest.raises(OrderError, match="10000 orders"):
        await book.put(TASK)
    await book.put(Entry(Kind.TASK, "0", 5_000.0))


def test_a_document_is_read_whole_or_refused_with_its_place() -> None:
    first, second = load_entries({"a.yaml": DOCUMENT})
    assert (first.kind, first.who, first.why) == (Kind.PRINCIPAL, "a.yaml", "its key has leaked")
    assert second.until == 1_796_083_200.0
    for broken in (DOCUMENT.replace("spiffe://", ""), DOCUMENT.replace("00:00Z", "00:00"), DOCUMENT + "x: 1\n"):
        with pytest.raises(DocumentError, match=r"a\.yaml:\d+"):
            load_entries({"a.yaml": broken})


async def test_replicas_hear_of_each_other_and_a_redis_that_lost_its_memory_is_told(redis: RedisServer) -> None:
    one, other = (replica(redis) for _ in range(2))
    one.put(TASK)
    await one.sync()
    assert await other.sync()
    assert list(other.entries) == [TASK]
    other.take_back(TASK.key)
    other.put(LASTING)
    await other.sync()
    assert await one.sync()
    assert not await one.sync()
    assert list(one.entries) == [LASTING]

    redis.stop()
    assert not await one.sync()
    one.put(TASK)
    await one.sync()
    assert one.trouble
    assert set(one.entries) == {LASTING, TASK}

    redis.start()  # without its memory
    await one.sync()
    assert not one.trouble
    await other.sync()
    assert set(one.entries) == set(other.entries) == {LASTING, TASK}
    fresh = replica(redis)
    await fresh.sync()
    assert set(fresh.entries) == {LASTING, TASK}
    for each in (one, other, fresh):
        await each.close()


async def test_a_redis_with_an_older_memory_does_not_let_in_what_was_revoked_since(redis: RedisServer) -> None:
    one, other = (replica(redis) for _ in range(2))
    one.put(LASTING)
    await one.sync()
    older = await one._redis.dump("phoenixflight:revocations")
    one.put(TASK)
    await one.sync()
    await other.sync()
    await one._redis.restore("phoenixflight:revocations", 0, older, replace=True)
    for each in (other, one, other):
        await each.sync()
    assert set(one.entries) == set(other.entries) == {LASTING, TASK}
    await one.close()
    await other.close()


async def test_what_was_kept_holds_until_redis_says_what_there_is_and_what_was_not_shared_is_shared(
    redis: RedisServer,
) -> None:
    other = replica(redis)
    other.put(LASTING)
    await other.sync()
    one = replica(redis)
    await one.sync()
    redis.stop()
    one.put(TASK)
    await one.sync()
    again = replica(redis, one.kept)
    assert set(again.entries) == {LASTING, TASK}
    redis.start()  # without its memory
    await other.sync()
    await again.sync()
    await other.sync()
    assert set(again.entries) == set(other.entries) == {LASTING, TASK}
    assert again.kept.unshared == ()
    other.take_back(LASTING.key)
    await other.sync()
    later = replica(redis, again.kept)
    await later.sync()
    assert list(later.entries) == [TASK]
    for each in (one, other, again, later):
        await each.close()
