"""What the load generator asks for, and who is told of the answer."""

from __future__ import annotations

import random
import uuid
from typing import Protocol

AUTHORITY = b"flight.internal"
CAPABILITY = b"code.execute"
BODY = b'{"task":"run","language":"python","source":"print(sum(range(10)))"}'

_random = random.Random(1)
CONVERSATIONS = [b'"%s"' % str(uuid.UUID(int=_random.getrandbits(128), version=4)).encode() for _ in range(1000)]
"""Structured-field Strings (RFC 9651), the same in every process: every proxy sees the same spread over its ring."""


class Call(Protocol):
    """One request under way."""

    def on_data(self, data: bytes) -> None:
        """A piece of the answer's body arrived."""

    def on_end(self, status: int) -> None:
        """The answer is whole; `status` is 0 when it never will be."""


class Connection(Protocol):
    """A connection that calls can be made on."""

    capacity: int
    lost: bool

    @property
    def in_flight(self) -> int:
        """Calls without their answer."""

    def start(self, method: bytes, path: bytes, conversation: bytes, body: bytes, call: Call) -> None:
        """Send a request whose body is at hand; it may wait for `flush`."""

    def upload(self, path: bytes, conversation: bytes, size: int, call: Call) -> None:
        """Send a request with `size` bytes of body, as fast as the peer takes them."""

    def flush(self) -> None:
        """Write what waits; not needed from inside a call's callbacks."""
