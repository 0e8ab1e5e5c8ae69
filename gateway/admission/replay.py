"""Each key is admitted once within its lifetime."""

from __future__ import annotations

import hashlib
from enum import Enum
from typing import Final, Protocol

from gateway.admission.calendar import Calendar

DEFAULT_CAPACITY: Final = 1_000_000
DIGEST_BYTES: Final = 16
_FORGOTTEN_PER_CALL = 4


class Admission(Enum):
    """The answer to a key; everything but `FRESH` is a refusal."""

    FRESH = "fresh"
    """Not seen before; from now on it is remembered."""
    SEEN = "seen"
    """Admitted before; or its time is over, so that nobody can tell any more."""
    FULL = "full"
    """There is no room to remember it."""
    UNAVAILABLE = "unavailable"
    """The store that would know does not answer."""


class ReplayGuard(Protocol):
    """Whoever remembers keys, in this process or for all replicas."""

    async def admit(self, key: bytes, now: float, until: float) -> Admission:
        """Admit `key` once; see `ReplayMemory.admit_now`."""
        ...

    @property
    def trouble(self) -> str:
        """Why the last question had no answer; empty when it had one."""
        ...

    async def close(self) -> None:
        """Ask no more."""


def digest(key: bytes) -> bytes:
    """What stands for `key` in a store: whoever chooses keys cannot make two that are taken for one."""
    return hashlib.blake2b(key, digest_size=DIGEST_BYTES).digest()


class ReplayMemory:
    """A `ReplayGuard` in this process.

    A key that lives is never forgotten: at `capacity` live keys, new ones are refused as `Admission.FULL`.  An entry
    takes about 110 bytes, a million of them 110 MB.
    """

    __slots__ = ("_calendar", "_capacity", "_latest", "_until")

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        self._capacity = capacity
        self._latest = float("-inf")
        self._until: dict[bytes, int] = {}
        """The second in which a key's time is over, by digest."""
        self._calendar: Calendar[bytes] = Calendar()

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._until)

    def admit_now(self, key: bytes, now: float, until: float) -> Admission:
        """Admit `key` once.

        A clock that is set back does not make old keys new: time is the latest ever told.

        Args:
            key: what is used once, such as a signer's nonce.
            now: seconds since the epoch.
            until: when `key` is no longer valid by itself; it is remembered until the next whole second.

        """
        now = self._latest = max(now, self._latest)
        if until <= now:
            return Admission.SEEN
        self._forget(now)
        mark = digest(key)
        if self._until.get(mark, now) > now:
            return Admission.SEEN
        if len(self._until) >= self._capacity and mark not in self._until:
            return Admission.FULL
        self._until[mark] = self._calendar.add(mark, until)
        return Admission.FRESH

    @property
    def trouble(self) -> str:
        """Nothing: it always answers."""
        return ""

    async def admit(self, key: bytes, now: float, until: float) -> Admission:
        """`admit_now`, as a `ReplayGuard`."""
        return self.admit_now(key, now, until)

    async def close(self) -> None:
        """Nothing is to be closed."""

    def _forget(self, now: float) -> None:
        """Drop a few keys whose time is over: more than a call adds, yet never so many that it takes long."""
        turns = _FORGOTTEN_PER_CALL
        while turns > 0 or len(self._until) >= self._capacity:
            mark = self._calendar.take(now)
            if mark is None:
                return
            turns -= 1
            # One that was admitted again since stands in the calendar twice.
            if self._until.get(mark, now) <= now:
                self._until.pop(mark, None)
