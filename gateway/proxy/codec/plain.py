"""Plain HTTP/1.1 heads, each read and written in one call, where the extension was compiled (`native/http1`).

``PHOENIXFLIGHT_HTTP1`` (``native`` or ``httptools``) asks for it, or for doing without: for tests, and to find out
whose a fault is.  In a module of its own, so that `http1` can be compiled.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from gateway.messages import Fields

__all__ = ["HTTP1_IMPLEMENTATION", "read_request", "read_response", "write_request", "write_response"]

_WANTED = os.environ.get("PHOENIXFLIGHT_HTTP1", "")


def _write_request(
    method: bytes, path: bytes, authority: bytes, otherwise: bytes, fields: Fields
) -> tuple[bytes, bool]:
    """A request head, whole, without what `fields` says of the host; and whether a content-length is among them.

    `otherwise` is a line that is written when there is none.
    """
    parts = [method, b" ", path, b" HTTP/1.1\r\nhost: ", authority, b"\r\n"]
    length = False
    for name, value in fields:
        if name == b"host":
            continue
        length = length or name == b"content-length"
        parts += (name, b": ", value, b"\r\n")
    if not length:
        parts.append(otherwise)
    parts.append(b"\r\n")
    return b"".join(parts), length


def _write_response(line: bytes, otherwise: bytes, end: bytes, fields: Fields) -> tuple[bytes, bool]:
    """A response head from its status line to `end`; `otherwise` and the answer as of `_write_request`."""
    parts = [line]
    length = False
    for name, value in fields:
        length = length or name == b"content-length"
        parts += (name, b": ", value, b"\r\n")
    if not length:
        parts.append(otherwise)
    parts.append(end)
    return b"".join(parts), length


read_request: Callable[[bytes, int, int, int], tuple[int, bytes, bytes, bytes, Fields, int] | None] | None = None
"""Of data, from where on, at most so many bytes of target and fields, and so many fields: the plain request head that
stands there whole, if there is one: where its body begins, method, target, host, fields, length of the body."""
read_response: Callable[[bytes, int, int], tuple[int, int, Fields, int] | None] | None = None
"""Of data, at most so many bytes of fields, and so many fields: the plain response head that it begins with, if there
is one: where its body begins, status, fields, length of the body."""
write_request: Callable[[bytes, bytes, bytes, bytes, Fields], tuple[bytes, bool]] = _write_request
write_response: Callable[[bytes, bytes, bytes, Fields], tuple[bytes, bool]] = _write_response

HTTP1_IMPLEMENTATION = "httptools"
"""``native`` where plain messages are read by the extension, ``httptools`` where it reads them all."""

if _WANTED in ("", "native"):
    try:
        from gateway.proxy.codec import _http1
    except ImportError:
        if _WANTED:
            raise
    else:
        HTTP1_IMPLEMENTATION = "native"
        read_request, read_response = _http1.read_request, _http1.read_response
        write_request, write_response = _http1.write_request, _http1.write_response
