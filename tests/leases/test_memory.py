"""Leases in this process, against a table that looks at everything every time; and their bounds."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass, field
from operator import attrgetter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.leases import Fate, LeaseMemory, LeaseSpec, Taken, Use
from gateway.leases.moves import Moves

EPOCH = 1_800_000_000.0
SPEC = LeaseSpec(idle_s="10s", remember_s="30s", moves_per_s=1000, capacity=3)
KEYS = st.sampled_from([b"%d" % number for number in range(5)])
AGENTS = "abc"


@dataclass
class Record:
    """A lease as the naive table has it."""

    key: bytes
    owner: str
    epoch: int
    at: float
    since: int
    """The number of the operation that renewed it: of two at the same time, the earlier goes first."""


@dataclass
class NaiveTable:
    """Looks at every lease every time."""

    now: float = -math.inf
    operations: int = 0
    records: dict[bytes, Record] = field(default_factory=dict)
    open: list[bytes] = field(default_factory=list)
    """The key of each open exchange."""

    def pass_time(self, now: float) -> None:
        self.now = max(self.now, now)
        self.records = {
            key: each for key, each in self.records.items() if key in self.open or each.at + SPEC.remember_s > self.now
        }

    def live(self, record: Record) -> bool:
        return record.key in self.open or record.at + SPEC.idle_s > self.now

    def packet(self, key: bytes, wanted: str, known: dict[str, Use]) -> Taken | None:
        self.operations += 1
        record = self.records.get(key)
        if record is None:
            idle = [each for each in self.records.values() if not self.live(each)]
            if len(self.records) == SPEC.capacity:
                if not idle:
                    return None
                del self.records[min(idle, key=attrgetter("at", "since")).key]
            self.records[key] = Record(key, wanted, 1, self.now, self.operations)
            return Taken(wanted, 1, Fate.NEW)
        fate = self.fate(record, wanted, known.get(record.owner, Use.KEEP))
        record.at, record.since = self.now, self.operations
        if fate not in (Fate.FORCED, Fate.MOVED):
            return Taken(record.owner, record.epoch, fate)
        previous, record.owner, record.epoch = record.owner, wanted, record.epoch + 1
        return Taken(wanted, record.epoch, fate, previous)

    def fate(self, record: Record, wanted: str, use: Use) -> Fate:
        if record.owner == wanted:
            return Fate.SAME
        if use is Use.LOST:
            return Fate.FORCED
        if use is Use.HAND_OVER:
            return Fate.KEPT if record.key in self.open else Fate.FORCED
        if use is Use.LEAVE:
            return Fate.KEPT if self.live(record) else Fate.FORCED
        return Fate.KEPT if self.live(record) else Fate.MOVED

    def end(self, index: int) -> bytes:
        self.operations += 1
        key = self.open.pop(index)
        if key in self.records and key not in self.open:
            self.records[key].at, self.records[key].since = self.now, self.operations
        return key


class Leases(RuleBasedStateMachine):
    """Packets come and exchanges end, while time passes and agents come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = LeaseMemory(SPEC)
        self.naive = NaiveTable()
        self.now = EPOCH
        self.known: dict[str, Use] = {}

    @rule(seconds=st.sampled_from([-5, 0.25, 1, 5, 9.75, 10, 20, 30, 100]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(agent=st.sampled_from(AGENTS), use=st.sampled_from(Use))
    def an_agent_changes(self, agent: str, use: Use) -> None:
        self.known[agent] = use

    @rule(key=KEYS, wanted=st.sampled_from(AGENTS), stays_open=st.booleans())
    def a_packet_comes(self, key: bytes, wanted: str, stays_open: bool) -> None:
        self.naive.pass_time(self.now)
        expected = self.naive.packet(key, wanted, self.known)
        owner = self.memory.live_at(key, self.now)
        if owner and self.known.get(owner, Use.KEEP) is Use.KEEP:
            self.memory.stay(key, self.now, same=owner == wanted)
            assert expected is not None
            assert (expected.owner, expected.fate) == (owner, Fate.SAME if owner == wanted else Fate.KEPT)
        else:
            assert expected == self.memory.take_now(
                key, wanted=wanted, usable=lambda owner: self.known.get(owner, Use.KEEP), now=self.now
            )
        self.naive.open.append(key)
        if not stays_open:
            self.end(-1)

    @precondition(lambda self: self.naive.open)
    @rule(data=st.data())
    def an_exchange_ends(self, data: st.DataObject) -> None:
        self.naive.pass_time(self.now)
        self.end(data.draw(st.integers(0, len(self.naive.open) - 1)))

    def end(self, index: int) -> None:
        self.memory.release(self.naive.end(index), self.now)

    @invariant()
    def no_more_leases_than_the_capacity(self) -> None:
        assert len(self.memory) <= SPEC.capacity


Leases.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestLeases = Leases.TestCase


def take(memory: LeaseMemory, key: bytes, now: float) -> Taken | None:
    return memory.take_now(key, wanted="one", usable=lambda _: Use.KEEP, now=now)


def test_at_capacity_the_one_that_is_idle_for_longest_is_forgotten_and_a_live_one_never() -> None:
    memory = LeaseMemory(LeaseSpec(idle_s="10s", capacity=3))
    for second, key in enumerate((b"a", b"b", b"c")):
        assert take(memory, key, second) is not None
    assert take(memory, b"d", 9) is None
    assert take(memory, b"a", 9) == Taken("one", 1, Fate.SAME)
    assert take(memory, b"d", 11) == Taken("one", 1, Fate.NEW), "b was idle since 11"
    assert [taken and taken.fate for taken in (take(memory, key, 11) for key in (b"a", b"c", b"d", b"b"))] == [
        *[Fate.SAME] * 3,
        None,
    ]


def test_the_table_shrinks_again_with_traffic() -> None:
    memory = LeaseMemory(LeaseSpec(idle_s="10s", remember_s="20s"))
    for number in range(1000):
        take(memory, b"burst %d" % number, 0)
    assert len(memory) == 1000
    for number in range(400):
        take(memory, b"later %d" % number, 10)
    assert len(memory) == 1400
    for number in range(400):
        take(memory, b"late %d" % number, 20)
    assert len(memory) == 800


def test_a_clock_that_is_set_back_makes_nothing_idle_or_new() -> None:
    memory = LeaseMemory(LeaseSpec())
    take(memory, b"c", EPOCH)
    memory.hold(b"c")
    memory.release(b"c", 0)
    answer = memory.take_now(b"c", wanted="two", usable=lambda _: Use.KEEP, now=EPOCH - 10_000)
    assert answer == Taken("one", 1, Fate.KEPT)


GROWTH = """
import resource
from gateway.leases import LeaseMemory, LeaseSpec, Use

memory = LeaseMemory(LeaseSpec())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for number in range(100_000):
    agent = "executor-%d" % (number % 100)
    memory.take_now(b"conversation %d" % number, wanted=agent, usable=lambda _: Use.KEEP, now=number / 1000)
assert len(memory) == 100_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_hundred_thousand_leases_take_less_than_60_mib() -> None:
    grown = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True, timeout=60)
    assert int(grown.stdout) / 1024 < 60


@pytest.mark.parametrize("set_back_s", [0, 3600])
def test_moves_keep_to_their_rate_and_go_on_after_a_clock_was_set_back(set_back_s: float) -> None:
    moves = Moves(4)
    assert [moves.allowed(EPOCH) for _ in range(5)] == [True] * 4 + [False]
    assert not moves.allowed(EPOCH - set_back_s)
    assert moves.allowed(EPOCH - set_back_s + 0.25)
    assert not moves.allowed(EPOCH - set_back_s + 0.25)
