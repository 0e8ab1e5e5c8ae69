"""The ledger in this process: whatever the interleaving, nothing is done twice; and its bounds."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.ledger import Found, LedgerMemory, LedgerSpec, Standing, StoredAnswer
from gateway.ledger.memory import OVERHEAD_BYTES

EPOCH = 1_800_000_000.0
SPEC = LedgerSpec(remember_s="30s", capacity=4, max_bytes=4096, max_answer=1000)
ANSWER = StoredAnswer(200, [(b"content-type", b"text/plain")], b"done", [(b"flight-usage", b"tokens=8")])
KEYS = st.sampled_from([b"%d" % number for number in range(6)])


@dataclass
class Work:
    """What an agent was asked to do, as a naive ledger has it."""

    digest: bytes
    under_way: bool = True
    answer: StoredAnswer | None = None
    ended: float = 0.0
    size: int = OVERHEAD_BYTES


@dataclass
class NaiveLedger:
    """Looks at everything every time."""

    now: float = float("-inf")
    works: dict[bytes, Work] = field(default_factory=dict)

    def pass_time(self, now: float) -> None:
        self.now = max(self.now, now)
        self.works = {
            key: work for key, work in self.works.items() if work.under_way or work.ended + SPEC.remember_s > self.now
        }

    @property
    def size(self) -> int:
        return sum(work.size for work in self.works.values())

    def begin(self, key: bytes, digest: bytes) -> Found:
        work = self.works.get(key)
        if work is None:
            if len(self.works) == SPEC.capacity or self.size + OVERHEAD_BYTES > SPEC.max_bytes:
                return Standing.FULL
            self.works[key] = Work(digest)
            return Standing.BEGUN
        if work.digest != digest:
            return Standing.CONFLICT
        if work.under_way:
            return Standing.TWIN
        return work.answer or Standing.UNKNOWN

    def settle(self, key: bytes, answer: StoredAnswer | None) -> bool:
        work = self.works[key]
        work.under_way, work.ended = False, self.now
        kept = answer is not None and answer.size <= SPEC.max_answer and self.size + answer.size <= SPEC.max_bytes
        if answer is not None and kept:
            work.answer = answer
            work.size += answer.size
        return kept


class Packets(RuleBasedStateMachine):
    """Packets come, and end in every way, while time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = LedgerMemory(SPEC)
        self.naive = NaiveLedger()
        self.now = EPOCH

    def under_way(self) -> list[bytes]:
        return [key for key, work in self.naive.works.items() if work.under_way]

    @rule(seconds=st.sampled_from([-5, 0.25, 10, 29.5, 30, 100]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(key=KEYS, digest=st.sampled_from([b"one", b"two"]))
    def a_packet_comes(self, key: bytes, digest: bytes) -> None:
        self.naive.pass_time(self.now)
        expected = self.naive.begin(key, digest)
        assert self.ledger.begin_now(key, digest, self.now) == expected

    @precondition(under_way)
    @rule(data=st.data(), length=st.sampled_from([0, 10, 900, 1000, 1001]))
    def one_is_done(self, data: st.DataObject, length: int) -> None:
        key = data.draw(st.sampled_from(self.under_way()))
        answer = StoredAnswer(200, [], b"%-*d" % (length, len(key)) if length else b"")
        self.naive.pass_time(self.now)
        assert self.ledger.finish(key, answer, self.now) is self.naive.settle(key, answer)

    @precondition(under_way)
    @rule(data=st.data())
    def one_is_lost(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.under_way()))
        self.naive.pass_time(self.now)
        self.naive.settle(key, None)
        self.ledger.lose(key, self.now)

    @precondition(under_way)
    @rule(data=st.data())
    def one_never_reached_an_agent(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.under_way()))
        self.ledger.forget(key)
        del self.naive.works[key]

    @invariant()
    def it_stays_within_its_bounds(self) -> None:
        assert self.ledger.entries <= SPEC.capacity
        assert 0 <= self.ledger.size <= SPEC.max_bytes

    def teardown(self) -> None:
        """What time has passed over is forgotten, to the last byte."""
        for key in self.under_way():
            self.ledger.forget(key)
        later = max(self.now, EPOCH) + 1000
        for number in range(SPEC.capacity):
            assert self.ledger.begin_now(b"later %d" % number, b"", later) is Standing.BEGUN
        assert self.ledger.entries == SPEC.capacity
        assert self.ledger.size == SPEC.capacity * OVERHEAD_BYTES


TestPackets = Packets.TestCase
TestPackets.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_an_answer_takes_the_room_of_what_time_has_passed_over() -> None:
    ledger = LedgerMemory(SPEC)
    large = StoredAnswer(200, [], b"x" * 900)
    for key in (b"1", b"2", b"3"):
        assert ledger.begin_now(key, b"d", EPOCH) is Standing.BEGUN
    assert ledger.finish(b"1", large, EPOCH)
    assert ledger.finish(b"2", large, EPOCH)
    assert ledger.size + large.size > SPEC.max_bytes
    assert ledger.finish(b"3", large, EPOCH + SPEC.remember_s)
    assert ledger.entries == 1


async def test_of_many_twins_that_wait_one_begins_when_nothing_was_done() -> None:
    ledger = LedgerMemory(SPEC)
    assert ledger.begin_now(b"k", b"d", EPOCH) is Standing.BEGUN
    asked = 1
    twins = [asyncio.create_task(ledger.begin(b"k", b"d", EPOCH, 10)) for _ in range(20)]
    await asyncio.sleep(0)
    ledger.forget(b"k")
    while True:
        done, pending = await asyncio.wait(twins, return_when=asyncio.FIRST_COMPLETED)
        if asked == 1:
            (begun,) = done
            assert begun.result() is Standing.BEGUN
            asked += 1
            assert len(pending) == 19
            ledger.finish(b"k", ANSWER, EPOCH)
        if not pending:
            break
    assert [twin.result() for twin in twins].count(ANSWER) == 19


async def test_a_twin_waits_no_longer_than_it_may_and_leaves_nothing_behind() -> None:
    ledger = LedgerMemory(SPEC)
    assert await ledger.begin(b"k", b"d", EPOCH) is Standing.BEGUN
    assert await ledger.begin(b"k", b"d", EPOCH, 0.01) is Standing.TWIN
    assert await ledger.begin(b"k", b"other", EPOCH, 10) is Standing.CONFLICT
    ledger.lose(b"k", EPOCH)
    assert await ledger.begin(b"k", b"d", EPOCH, 10) is Standing.UNKNOWN


async def test_no_more_twins_wait_than_there_is_room_for(monkeypatch) -> None:
    monkeypatch.setattr("gateway.ledger.memory.MAX_WAITING", 1)
    ledger = LedgerMemory(SPEC)
    assert ledger.begin_now(b"k", b"d", EPOCH) is Standing.BEGUN
    waiting = asyncio.create_task(ledger.begin(b"k", b"d", EPOCH, 10))
    await asyncio.sleep(0)
    assert await ledger.begin(b"k", b"d", EPOCH, 10) is Standing.TWIN
    ledger.finish(b"k", ANSWER, EPOCH)
    assert await waiting == ANSWER
