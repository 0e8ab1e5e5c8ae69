"""Who may begin a handshake, and when its next step is taken.

A step of a handshake is asymmetric cryptography: a millisecond of the event loop that a stranger asks for with a few
bytes.  So an address has a bounded number of them under way and a rate of new ones, and steps wait in a queue that has
one slice of each turn of the loop, whatever comes in.  What is open has the rest of the turn, and goes first.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

SLICE_S = 0.001
"""Of each turn of the event loop that handshakes have while others wait; one step is taken in any case."""
BURST_S = 5.0
"""How long an address that was silent may save up its rate."""
MAX_SILENT_ADDRESSES = 16_384
"""Addresses without a connection whose rate is remembered; then the one that was silent the longest is forgotten."""
_IPV6_SITE = 64
"""Bits: whoever has one IPv6 address has all of its /64 (RFC 6177)."""


@dataclass(frozen=True, slots=True)
class ArrivalLimits:
    """Bounds on who comes in at a listener; what is beyond them is closed when it is accepted."""

    max_connections: int = 20_000
    max_connections_per_address: int = 10_000
    max_handshakes_per_address: int = 256
    """Under way at a time."""
    handshakes_per_second: float = 100.0
    """New ones from an address, beside a burst of `BURST_S` seconds' worth."""


class _Address:
    """What is known of an address."""

    __slots__ = ("connections", "handshakes", "saved", "since")

    def __init__(self, saved: float, since: float) -> None:
        self.connections = 0
        self.handshakes = 0
        self.saved = saved
        """Handshakes that it may begin at once, as of `since`."""
        self.since = since


class Arrivals:
    """Counts the connections of a listener by address."""

    def __init__(self, limits: ArrivalLimits, *, handshakes: bool) -> None:
        """Args: `handshakes` is whether the listener speaks TLS."""
        self._limits = limits
        self._handshakes = handshakes
        self._burst = limits.handshakes_per_second * BURST_S
        self._addresses: dict[str, _Address] = {}
        self._silent: OrderedDict[str, _Address] = OrderedDict()
        self._connections = 0

    def retune(self, limits: ArrivalLimits) -> None:
        """Go by other limits; who is there stays."""
        self._limits = limits
        self._burst = limits.handshakes_per_second * BURST_S

    def admit(self, address: str, now: float) -> str:
        """Count a connection from `address`; gives the reason when it has to be closed instead, else nothing.

        Args:
            address: as `site` gives it.
            now: the loop's time.

        """
        limits = self._limits
        if self._connections >= limits.max_connections:
            return "too-many-connections"
        known = self._addresses.get(address) or self._silent.pop(address, None) or _Address(self._burst, now)
        self._addresses[address] = known
        reason = ""
        if known.connections >= limits.max_connections_per_address:
            reason = "too-many-connections"
        elif self._handshakes:
            known.saved = min(self._burst, known.saved + (now - known.since) * limits.handshakes_per_second)
            known.since = now
            if known.handshakes >= limits.max_handshakes_per_address or known.saved < 1:
                reason = "too-many-handshakes"
            else:
                known.saved -= 1
                known.handshakes += 1
        if reason:
            self._settle(address, known)
        else:
            known.connections += 1
            self._connections += 1
        return reason

    def shaken(self, address: str) -> None:
        """A handshake from `address` is over."""
        self._addresses[address].handshakes -= 1

    def left(self, address: str, *, shaking: bool) -> None:
        """A connection from `address` is gone; `shaking` when its handshake was not over."""
        known = self._addresses[address]
        known.connections -= 1
        known.handshakes -= shaking
        self._connections -= 1
        self._settle(address, known)

    def _settle(self, address: str, known: _Address) -> None:
        if known.connections:
            return
        del self._addresses[address]
        self._silent[address] = known
        if len(self._silent) > MAX_SILENT_ADDRESSES:
            self._silent.popitem(last=False)


def site(address: str) -> str:
    """What is counted as one address: an IPv4 address, or an IPv6 network of 64 bits."""
    if ":" not in address:
        return address
    bare = ipaddress.IPv6Address(address.partition("%")[0])
    if bare.ipv4_mapped is not None:
        return str(bare.ipv4_mapped)
    return str(ipaddress.IPv6Network((bare, _IPV6_SITE), strict=False))


class Shaking(Protocol):
    """A connection whose handshake has a step to take."""

    site: str

    def shake(self) -> None:
        """Take the step."""


class HandshakeQueue:
    """The steps that are due, of all listeners: addresses have their turns one after the other.

    A connection waits in it at most once, so that the bounds on connections bound it, too.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = perf_counter) -> None:
        self._loop = loop
        self._clock = clock
        self._waiting: OrderedDict[str, deque[Shaking]] = OrderedDict()
        self._due = False

    def put(self, connection: Shaking) -> None:
        """`connection` has a step to take."""
        queue = self._waiting.get(connection.site)
        if queue is None:
            queue = self._waiting[connection.site] = deque()
        queue.append(connection)
        self._schedule()

    def _schedule(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._serve)

    def _serve(self) -> None:
        self._due = False
        waiting = self._waiting
        until = self._clock() + SLICE_S
        while waiting:
            address, queue = next(iter(waiting.items()))
            connection = queue.popleft()
            if queue:
                waiting.move_to_end(address)
            else:
                del waiting[address]
            connection.shake()
            if self._clock() >= until:
                break
        if waiting:
            # In the next turn: until then the loop has looked at every other socket.
            self._schedule()
