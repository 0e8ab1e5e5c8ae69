"""Where a connection was going before netfilter redirected it here (``SO_ORIGINAL_DST``)."""

from __future__ import annotations

import socket
import struct
from typing import Final, Protocol

from gateway.routes import place

NOWHERE: Final = "unknown"
"""Of a connection of which the kernel does not know; no agent is there."""

_SO_ORIGINAL_DST: Final = 80
"""linux/netfilter_ipv4.h; IP6T_SO_ORIGINAL_DST of linux/netfilter_ipv6/ip6_tables.h is the same."""
_IPV4_BYTES: Final = 16
_IPV6_BYTES: Final = 28


class Asked(Protocol):
    """A connected socket."""

    @property
    def family(self) -> int:
        """``AF_INET`` or ``AF_INET6``."""

    def getsockopt(self, level: int, name: int, size: int, /) -> bytes:
        """Read one option."""


def original_destination(raw: Asked) -> str:
    """The `place` that the peer of `raw` connected to; `NOWHERE` when the kernel does not track the connection."""
    six = raw.family == socket.AF_INET6
    level, size = (socket.IPPROTO_IPV6, _IPV6_BYTES) if six else (socket.IPPROTO_IP, _IPV4_BYTES)
    try:
        found = raw.getsockopt(level, _SO_ORIGINAL_DST, size)
    except OSError:
        return NOWHERE
    (port,) = struct.unpack_from("!H", found, 2)
    address = socket.inet_ntop(raw.family, found[8:24] if six else found[4:8])
    return place(address, port)
