"""A packet that is done once, between its exchange and the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.ledger import LedgerMemory, LedgerSpec, StoredAnswer
from gateway.proxy.once import Event, OnceOnly, OncePacket
from gateway.refusal import Reason, Refusal
from tests.waiting import eventually

Told = list[StoredAnswer | Refusal | None]


@pytest.fixture
async def once() -> AsyncIterator[OnceOnly]:
    spec = LedgerSpec(capabilities=["*"], wait_s="20s", max_body=10, max_held=15, max_answer=10)

    def defect() -> None:
        raise AssertionError("a defect")

    room = OnceOnly(asyncio.get_running_loop(), LedgerMemory(spec), spec, defect)
    yield room
    await room.close()


def begin(once: OnceOnly) -> tuple[OncePacket, Told]:
    packet, told = OncePacket(once, b"key", b"kind"), Told()
    packet.begin(0, told.append)
    return packet, told


async def test_one_that_is_over_before_its_turn_comes_leaves_the_turn_to_the_next(once: OnceOnly) -> None:
    first, told = begin(once)
    assert told == [None]
    gone, told_gone = begin(once)
    waiting, told_waiting = begin(once)
    await asyncio.sleep(0)
    gone.end(0)
    first.end(0)
    await asyncio.to_thread(eventually, lambda: told_waiting)
    assert (told_waiting, told_gone) == ([None], [])
    waiting.sent()
    waiting.on_response(200, [], ended=True)
    waiting.end(0)
    assert begin(once)[1] == [StoredAnswer(200, [], b"")]
    assert {event: count for event, count in once.counts.items() if count} == {
        Event.BEGUN: 2,
        Event.WAITED: 2,
        Event.FORGOTTEN: 1,
        Event.DONE: 1,
        Event.REPEATED: 1,
    }


async def test_one_that_an_agent_gave_back_may_be_done_by_another_or_not_at_all(once: OnceOnly) -> None:
    packet, _ = begin(once)
    packet.sent()
    assert packet.worth_going_on
    packet.untouched()
    assert not packet.worth_going_on
    packet.end(0)
    assert begin(once)[1] == [None]


async def test_one_that_an_agent_had_is_unknown_unless_its_answer_is_whole(once: OnceOnly) -> None:
    packet, _ = begin(once)
    packet.sent()
    packet.on_response(200, [], ended=False)
    packet.on_response_data(b"part")
    packet.end(0)
    (told,) = begin(once)[1]
    assert isinstance(told, Refusal)
    assert told.reason is Reason.OUTCOME_UNKNOWN


async def test_what_is_too_large_to_keep_is_kept_in_no_part(once: OnceOnly) -> None:
    packet, _ = begin(once)
    packet.sent()
    packet.on_response(200, [], ended=False)
    for _ in range(3):
        packet.on_response_data(b"12345")
    assert not packet.worth_going_on
    packet.on_response_end(None)
    packet.end(0)
    assert once.counts[Event.TOO_LARGE] == 1


async def test_bodies_count_until_they_are_on_their_way_or_over(once: OnceOnly) -> None:
    packets = [OncePacket(once, b"%d" % number, b"kind") for number in range(3)]
    assert packets[0].take(b"x" * 10) is None
    assert packets[0].take(b"x") == once.too_large
    assert packets[1].take(b"x" * 5) is None
    refused = packets[2].take(b"x")
    assert refused is not None
    assert refused.reason is Reason.OVERLOADED
    packets[0].begin(0, lambda _: None)
    packets[0].sent()
    packets[1].end(0)
    assert packets[2].take(b"x" * 10) is None
    assert OncePacket(once, b"4", b"kind").take(b"x" * 5) is None
