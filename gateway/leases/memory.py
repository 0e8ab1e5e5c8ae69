"""Leases in this process."""

from __future__ import annotations

import sys
from collections import OrderedDict

from gateway.admission.replay import digest
from gateway.leases.holds import Holds
from gateway.leases.lease import Fate, Taken, Usable, fate_of, outcome
from gateway.leases.moves import Moves
from gateway.leases.spec import LeaseSpec

_AGED_PER_CALL = 4

_Record = tuple[str, int, float]
"""Owner, epoch, and when it was renewed.  A plain tuple, since the garbage collector need not look at those again."""


class LeaseMemory:
    """A `LeaseTable` in this process.

    At its capacity, what is idle for longest is forgotten for a new conversation.  A live lease never is: when all are,
    a new conversation has none.  A lease takes about 220 bytes.
    """

    __slots__ = ("_capacity", "_held", "_idle", "_idle_s", "_latest", "_live", "_moves", "_remember_s", "counts")

    def __init__(self, spec: LeaseSpec) -> None:
        self.counts = dict.fromkeys(Fate, 0)
        self._idle_s = spec.idle_s
        self._remember_s = spec.remember_s
        self._capacity = spec.capacity
        self._moves = Moves(spec.moves_per_s)
        self._latest = float("-inf")
        self._live: OrderedDict[bytes, _Record] = OrderedDict()
        """By digest, those first that were renewed first; among them some that went idle just now."""
        self._idle: OrderedDict[bytes, _Record] = OrderedDict()
        """The same; all of them were renewed before any in `_live`."""
        self._held = Holds()

    def __len__(self) -> int:
        """How many leases are live."""
        return len(self._live)

    @property
    def trouble(self) -> str:
        """Nothing: it always answers."""
        return ""

    def take_now(self, key: bytes, *, wanted: str, usable: Usable, now: float, migrate: bool = False) -> Taken | None:
        """`take`, at once."""
        now = self._latest = max(now, self._latest)
        mark = digest(key)
        record, live = self._find(mark, now)
        if record is None:
            taken = self._begin(mark, wanted, now)
        else:
            taken = self._go_on(record, live, wanted, usable, now, migrate)
        if taken is not None:
            self._renew(mark, (sys.intern(taken.owner), taken.epoch, now))
            self.counts[taken.fate] += 1
        self._age(now)
        return taken

    def _find(self, mark: bytes, now: float) -> tuple[_Record | None, bool]:
        """What is known under `mark`, and whether it is live."""
        record = self._live.get(mark) or self._idle.get(mark)
        if record is None:
            return None, False
        # Whoever asks holds it already.
        if self._held.shared(mark) or record[2] + self._idle_s > now:
            return record, True
        return record if record[2] + self._remember_s > now else None, False

    def _begin(self, mark: bytes, wanted: str, now: float) -> Taken | None:
        if mark not in self._live and mark not in self._idle:
            while len(self._live) + len(self._idle) >= self._capacity:
                if not self._forget(0, now) and not self._rest(now):
                    return None
        return Taken(wanted, 1, Fate.NEW)

    def _go_on(self, record: _Record, live: bool, wanted: str, usable: Usable, now: float, migrate: bool) -> Taken:
        owner, epoch, _ = record
        if owner == wanted:
            return Taken(owner, epoch, Fate.SAME)
        what = fate_of(usable(owner), live=live, migrate=migrate, may_move=lambda: self._moves.allowed(now))
        return outcome(what, owner, epoch, wanted)

    def _renew(self, mark: bytes, record: _Record) -> None:
        self._idle.pop(mark, None)
        self._live[mark] = record
        self._live.move_to_end(mark)

    def _age(self, now: float) -> None:
        """Let a few leases go idle, and forget a few: more than a call adds, yet never so many that it takes long."""
        for _ in range(_AGED_PER_CALL):
            if not self._rest(now):
                break
        for _ in range(_AGED_PER_CALL):
            if not self._forget(self._remember_s, now):
                break

    def _rest(self, now: float) -> bool:
        """Let the live lease that was renewed first go idle, if its time has come and nobody holds it."""
        for mark, (owner, epoch, at) in self._live.items():
            if at + self._idle_s > now:
                break
            if mark in self._held:
                self._renew(mark, (owner, epoch, now))
            else:
                self._idle[mark] = self._live.pop(mark)
            return True
        return False

    def _forget(self, quiet_s: float, now: float) -> bool:
        """Forget the lease that is idle for longest, if it was renewed `quiet_s` ago and nobody holds it."""
        for mark, (owner, epoch, at) in self._idle.items():
            if at + quiet_s > now:
                break
            if mark in self._held:
                self._renew(mark, (owner, epoch, now))
            else:
                del self._idle[mark]
            return True
        return False

    def hold(self, key: bytes) -> None:
        """See `LeaseTable.hold`."""
        self._held.add(digest(key))

    def release(self, key: bytes, now: float) -> None:
        """See `LeaseTable.release`."""
        now = self._latest = max(now, self._latest)
        mark = digest(key)
        if not self._held.remove(mark):
            return
        record = self._live.get(mark) or self._idle.get(mark)
        if record is not None:
            self._renew(mark, (record[0], record[1], now))

    async def take(self, key: bytes, *, wanted: str, usable: Usable, now: float, migrate: bool = False) -> Taken | None:
        """`take_now`, as a `LeaseTable`."""
        return self.take_now(key, wanted=wanted, usable=usable, now=now, migrate=migrate)

    async def run(self) -> None:
        """Nothing is to be done: what is held is seen to be."""

    async def close(self) -> None:
        """Nothing is to be closed."""
