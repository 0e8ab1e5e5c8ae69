"""Whose HTTP/2 it is: nghttp2's, where the extension is installed, else ours on jh2 or h2.

``PHOENIXFLIGHT_HTTP2`` (``nghttp2``, ``jh2`` or ``h2``) asks for one of them: for tests, and to find out whose a fault
is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from gateway.proxy.codec.library import LIBRARY, WANTED
from gateway.proxy.codec.seam import ClientCodec, ServerCodec

__all__ = ["HTTP2_IMPLEMENTATION", "Http2Client", "Http2Server"]


class _MakeServer(Protocol):
    def __call__(
        self,
        *,
        max_streams: int = 256,
        max_header_bytes: int = 65536,
        max_headers: int = 100,
        clock: Callable[[], float] = time.monotonic,
    ) -> ServerCodec: ...


class _MakeClient(Protocol):
    def __call__(
        self,
        *,
        max_streams: int = 100,
        max_header_bytes: int = 65536,
        max_headers: int = 100,
        clock: Callable[[], float] = time.monotonic,
    ) -> ClientCodec: ...


def _choose() -> tuple[str, _MakeServer, _MakeClient]:
    if WANTED in ("", "nghttp2"):
        try:
            from gateway.proxy.codec import nghttp2
        except ImportError:
            if WANTED:
                raise
        else:
            return "nghttp2", nghttp2.Http2Server, nghttp2.Http2Client
    from gateway.proxy.codec import http2

    return LIBRARY, http2.Http2Server, http2.Http2Client


HTTP2_IMPLEMENTATION, Http2Server, Http2Client = _choose()
"""``nghttp2``, ``jh2`` or ``h2``, and its codecs for callers and for agents."""
