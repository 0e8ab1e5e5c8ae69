"""HTTP messages as plain values, the same for HTTP/1.1 and HTTP/2.  Pure.

Field names are lower-case bytes.  Connection-specific fields (RFC 9110 section 7.6.1) never appear here:
codecs take them off on the way in and write their own on the way out.  An upgraded or tunnelled exchange is
always in the form of RFC 8441: method ``CONNECT`` with `RequestHead.protocol` set, answered by a 2xx.
"""

from __future__ import annotations

import re

import msgspec

AUTHORITY = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~%!$&'()*+,;=]+)?(?::[0-9]*)?")
"""A host, perhaps empty, and perhaps a port (RFC 3986 section 3.2), without user information."""

Field = tuple[bytes, bytes]
Fields = list[Field]


class RequestHead(msgspec.Struct, frozen=True, gc=False):
    """A request's start: control data and header fields."""

    method: bytes
    scheme: bytes
    authority: bytes
    path: bytes
    """Path and query, in origin form (``/run?x=1``); empty for a plain CONNECT."""
    fields: Fields
    protocol: bytes = b""
    """The ``:protocol`` of an extended CONNECT (RFC 8441), e.g. ``websocket``; empty otherwise."""


class ResponseHead(msgspec.Struct, frozen=True, gc=False):
    """A response's start, interim (1xx) or final."""

    status: int
    fields: Fields
