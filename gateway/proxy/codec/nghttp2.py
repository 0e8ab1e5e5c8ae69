"""HTTP/2 (RFC 9113) on nghttp2, where the extension was compiled; the same rules as in `http2`, and the same answers.

The codec itself is in C, down to its events (`native/http2/`).  A connection costs its peer's floods the same
allowances (`FloodGuard`): C counts frames, and asks the guard once for what a read of the socket brought.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from gateway.proxy.codec._nghttp2 import KINDS, VERSION, Connection
from gateway.proxy.codec.budget import FloodGuard, Kind
from gateway.proxy.codec.trailers import for_agents, for_callers

__all__ = ["VERSION", "Http2Client", "Http2Server"]

if tuple(kind.name for kind in Kind) != KINDS:
    raise ImportError("the compiled codec counts other kinds of frames than budget.Kind; compile it again")


class Http2Server(Connection):
    """The caller's side: reads requests, writes responses."""

    __slots__ = ()

    multiplexed = True
    name = "h2"
    aborted = False
    backlogged = False

    def __init__(
        self,
        *,
        max_streams: int = 256,
        max_header_bytes: int = 65536,
        max_headers: int = 100,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            client=False,
            max_streams=max_streams,
            max_header_bytes=max_header_bytes,
            max_headers=max_headers,
            guard=FloodGuard(clock),
            sound_trailers=for_agents,
        )


class Http2Client(Connection):
    """The agent's side: writes requests, reads responses."""

    __slots__ = ()

    multiplexed = True
    name = "h2"
    aborted = False

    def __init__(
        self,
        *,
        max_streams: int = 100,
        max_header_bytes: int = 65536,
        max_headers: int = 100,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            client=True,
            max_streams=max_streams,
            max_header_bytes=max_header_bytes,
            max_headers=max_headers,
            guard=FloodGuard(clock),
            sound_trailers=for_callers,
        )
