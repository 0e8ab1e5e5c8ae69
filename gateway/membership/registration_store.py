"""Where registrations are kept: who owns which name, and until when."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection
from enum import Enum
from typing import Final, Protocol

import msgspec

from gateway.membership.registration import Registration

MAX_REGISTRATIONS: Final = 10_000
MAX_PER_PRINCIPAL: Final = 100
SWEEP_INTERVAL_S: Final = 0.25
"""How late it is noticed that a lease has ended, at most."""

log = logging.getLogger(__name__)


class Stored(Enum):
    """What became of a question to the store."""

    CREATED = "created"
    RENEWED = "renewed"
    RETIRED = "retired"
    """It drains now, or is gone."""
    TAKEN = "taken"
    """Another principal owns the name."""
    UNKNOWN = "unknown"
    """There is none of that name and owner."""
    FULL = "full"
    """There are as many registrations as there may be."""
    TOO_MANY = "too-many"
    """The principal has as many as it may have."""
    UNAVAILABLE = "unavailable"
    """The store does not answer."""


class RegistrationStore(Protocol):
    """Whoever keeps registrations, in this process or for all replicas."""

    on_change: Callable[[Collection[str]], None]
    """Called on the event loop with the names whose registrations are others now, or gone; or none, after a change
    of `trouble`."""
    lost: int
    """How many registrations ended because nobody renewed them."""

    def get(self, name: str) -> Registration | None:
        """The registration that lives under `name`."""

    def expires_in_s(self, name: str) -> float:
        """How much longer it lives if nothing is heard of it."""

    @property
    def count(self) -> int:
        """How many there are."""

    async def put(self, registration: Registration) -> Stored:
        """Register or renew; the first who takes a name owns it while the registration lives."""

    async def retire(self, name: str, owner: str, drain_s: float) -> Stored:
        """Let a registration of `owner` go: it drains for `drain_s`, and is gone then."""

    @property
    def trouble(self) -> str:
        """Why the store does not answer; empty when it does."""

    async def run(self) -> None:
        """Let leases end, and hear of other replicas, until cancelled."""

    async def close(self) -> None:
        """Ask no more."""


def nobody(names: Collection[str]) -> None:
    """Listen to no change."""


def note_end(registration: Registration) -> bool:
    """Log that `registration` is over; whether it was lost."""
    if not registration.draining:
        log.warning("member %s of %s is lost: its lease was not renewed", registration.name, registration.owner)
    return not registration.draining


class RegistrationMemory:
    """A `RegistrationStore` in this process."""

    trouble = ""

    def __init__(
        self,
        *,
        max_registrations: int = MAX_REGISTRATIONS,
        max_per_principal: int = MAX_PER_PRINCIPAL,
        clock: Callable[[], float] = time.monotonic,
        sweep_interval_s: float = SWEEP_INTERVAL_S,
    ) -> None:
        """Nothing is registered yet; `clock` counts seconds and never goes back."""
        self.on_change: Callable[[Collection[str]], None] = nobody
        self.lost = 0
        self._max_registrations = max_registrations
        self._max_per_principal = max_per_principal
        self._clock = clock
        self._sweep_interval_s = sweep_interval_s
        self._held: dict[str, tuple[Registration, float]] = {}
        """Each with the time when it ends."""
        self._owned: Counter[str] = Counter()
        """How many a principal has."""

    @property
    def count(self) -> int:
        return len(self._held)

    def get(self, name: str) -> Registration | None:
        held = self._held.get(name)
        return held[0] if held is not None and held[1] > self._clock() else None

    def expires_in_s(self, name: str) -> float:
        held = self._held.get(name)
        return max(0.0, held[1] - self._clock()) if held is not None else 0.0

    async def put(self, registration: Registration) -> Stored:
        name, owner = registration.name, registration.owner
        self.sweep([name])
        held = self.get(name)
        if held is None:
            if self._refusal(owner) is not None:
                self.sweep()  # some may have ended meanwhile
            refusal = self._refusal(owner)
            if refusal is not None:
                return refusal
            self._owned[owner] += 1
        elif held.owner != owner:
            return Stored.TAKEN
        self._held[name] = registration, self._clock() + registration.lease_s
        if held != registration:
            self.on_change([name])
        return Stored.CREATED if held is None else Stored.RENEWED

    def _refusal(self, owner: str) -> Stored | None:
        if self._owned[owner] >= self._max_per_principal:
            return Stored.TOO_MANY
        return Stored.FULL if len(self._held) >= self._max_registrations else None

    async def retire(self, name: str, owner: str, drain_s: float) -> Stored:
        held = self.get(name)
        if held is None or held.owner != owner:
            return Stored.UNKNOWN
        self._held[name] = msgspec.structs.replace(held, draining=True), self._clock() + drain_s
        self.on_change([name])
        self.sweep([name])
        return Stored.RETIRED

    def sweep(self, names: Collection[str] | None = None) -> None:
        """Drop what has ended, among `names` or all."""
        now = self._clock()
        looked_at = self._held if names is None else [name for name in names if name in self._held]
        over = [name for name in looked_at if self._held[name][1] <= now]
        for name in over:
            registration, _ = self._held.pop(name)
            self.lost += note_end(registration)
            self._owned[registration.owner] -= 1
            if not self._owned[registration.owner]:
                del self._owned[registration.owner]
        if over:
            self.on_change(over)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._sweep_interval_s)
            self.sweep()

    async def close(self) -> None:
        """Nothing is open."""
