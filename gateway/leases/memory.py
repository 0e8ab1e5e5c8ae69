"""Leases in this process."""

from __future__ import annotations

import math
import sys
from collections import OrderedDict
from collections.abc import Mapping

from gateway.admission.replay import digest
from gateway.leases.lease import Fate, Lease, Taken, Usable, fate_of, outcome
from gateway.leases.moves import Moves
from gateway.leases.spec import LeaseSpec

_AGED_PER_LEASE = 4
_LOOKS = 64
"""Leases looked at to make room for another."""
_MAX_KEY_BYTES = 96
"""A longer key is kept as a digest."""


class LeaseMemory:
    """A `LeaseTable` in this process.

    At its capacity, what is idle for longest is forgotten for a new conversation.  A live lease never is: when all are,
    a new conversation has none.  A lease takes about 350 bytes.
    """

    __slots__ = (
        "_capacity", "_counts", "_idle_s", "_kept", "_latest", "_leases", "_moves", "_owned", "_remember_s", "_same",
    )  # fmt: skip

    def __init__(self, spec: LeaseSpec) -> None:
        self._counts = dict.fromkeys(Fate, 0)
        self._same = self._kept = 0
        """Packets whose fate was `Fate.SAME` or `Fate.KEPT`, apart from the others for speed."""
        self._idle_s = spec.idle_s
        self._remember_s = spec.remember_s
        self._capacity = spec.capacity
        self._moves = Moves(spec.moves_per_s)
        self._latest = -math.inf
        self._leases: OrderedDict[bytes, Lease] = OrderedDict()
        """Those first that were renewed first, but for some that are held."""
        self._owned = 0

    def __len__(self) -> int:
        """How many leases there are, live or idle."""
        return self._owned

    @property
    def counts(self) -> Mapping[Fate, int]:
        """See `LeaseTable.counts`."""
        return {**self._counts, Fate.SAME: self._same, Fate.KEPT: self._counts[Fate.KEPT] + self._kept}

    @property
    def trouble(self) -> str:
        """Nothing: it always answers."""
        return ""

    def hold(self, key: bytes) -> None:
        """See `LeaseTable.hold`."""
        self._hold(_mark(key))

    def _hold(self, mark: bytes) -> Lease:
        lease = self._leases.get(mark)
        if lease is None:
            lease = self._leases[mark] = Lease()
        lease.open += 1
        return lease

    def live_at(self, key: bytes, now: float) -> str:
        """See `LeaseTable.live_at`."""
        lease = self._hold(_mark(key))
        if lease.open > 1 or lease.renewed + self._idle_s > max(now, self._latest):
            return lease.owner
        return ""

    def stay(self, key: bytes, now: float, *, same: bool) -> None:
        """See `LeaseTable.stay`."""
        mark = _mark(key)
        if same:
            self._same += 1
        else:
            self._kept += 1
        self._renew(mark, self._leases[mark], now)

    def release(self, key: bytes, now: float) -> None:
        """See `LeaseTable.release`."""
        mark = _mark(key)
        lease = self._leases[mark]
        lease.open -= 1
        if lease.open:
            return
        if lease.owner:
            self._renew(mark, lease, now)
        else:
            del self._leases[mark]
            self._latest = max(now, self._latest)

    def take_now(self, key: bytes, *, wanted: str, usable: Usable, now: float) -> Taken | None:
        """`take`, at once."""
        mark = _mark(key)
        lease = self._leases.get(mark)
        if lease is None or not lease.owner or self._over(lease, now):
            taken = self._begin(mark, lease, wanted, now)
            if taken is not None:
                self._counts[Fate.NEW] += 1
            return taken
        if lease.owner == wanted:
            self._same += 1
            taken = Taken(wanted, lease.epoch, Fate.SAME)
        else:
            now = max(now, self._latest)
            # Whoever asks holds it already.
            alone = lease.open <= 1
            live = not alone or lease.renewed + self._idle_s > now
            what = fate_of(usable(lease.owner), live=live, alone=alone, may_move=lambda: self._moves.allowed(now))
            taken = outcome(what, lease.owner, lease.epoch, wanted)
            lease.owner, lease.epoch = sys.intern(taken.owner), taken.epoch
            self._counts[what] += 1
        self._renew(mark, lease, now)
        return taken

    def _over(self, lease: Lease, now: float) -> bool:
        """Whether its conversation is to be forgotten; whoever asks holds it already."""
        return lease.open <= 1 and lease.renewed + self._remember_s <= max(now, self._latest)

    def _begin(self, mark: bytes, lease: Lease | None, wanted: str, now: float) -> Taken | None:
        now = self._latest = max(now, self._latest)
        known = lease is not None and bool(lease.owner)
        if not known:
            self._age(now)
            if self._owned >= self._capacity and not self._forget(1, self._idle_s, now, apart=mark):
                return None
            self._owned += 1
        if lease is None:
            lease = self._leases[mark] = Lease()
        lease.owner, lease.epoch = sys.intern(wanted), 1
        self._renew(mark, lease, now)
        return Taken(wanted, 1, Fate.NEW)

    def _renew(self, mark: bytes, lease: Lease, now: float) -> None:
        if now < self._latest:
            now = self._latest
        else:
            self._latest = now
        lease.renewed = now
        self._leases.move_to_end(mark)

    def _age(self, now: float) -> None:
        """Forget a few conversations: more than a call adds, yet never so many that it takes long."""
        self._forget(_AGED_PER_LEASE, self._remember_s, now, _AGED_PER_LEASE)

    def _forget(self, count: int, quiet_s: float, now: float, looks: int = _LOOKS, apart: bytes = b"") -> int:
        """Forget up to `count` leases that were renewed first, `quiet_s` ago or longer; gives how many it were.

        Those that are held, and `apart`, are put behind the others.  No more than `looks` are looked at.
        """
        forgotten = 0
        for _ in range(min(looks, len(self._leases))):
            mark, lease = next(iter(self._leases.items()))
            if lease.open or mark == apart:
                self._renew(mark, lease, now)
            elif lease.renewed + quiet_s > now or forgotten == count:
                break
            else:
                del self._leases[mark]
                self._owned -= 1
                forgotten += 1
        return forgotten

    async def take(self, key: bytes, *, wanted: str, usable: Usable, now: float) -> Taken | None:
        """`take_now`, as a `LeaseTable`."""
        return self.take_now(key, wanted=wanted, usable=usable, now=now)

    async def run(self) -> None:
        """Nothing is to be done: what is held is seen to be."""

    async def close(self) -> None:
        """Nothing is to be closed."""


def _mark(key: bytes) -> bytes:
    """What stands for a key: itself, or for a long one its digest, which begins as no short one does."""
    return key if len(key) <= _MAX_KEY_BYTES else b"\0" + digest(key)
