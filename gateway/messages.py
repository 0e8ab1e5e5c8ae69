"""HTTP messages as plain values, the same for HTTP/1.1 and HTTP/2.  Pure.

Field names are lower-case bytes.  Connection-specific fields (RFC 9110 section 7.6.1) never appear here:
codecs take them off on the way in and write their own on the way out.  An upgraded or tunnelled exchange is
always in the form of RFC 8441: method ``CONNECT`` with `RequestHead.protocol` set, answered by a 2xx.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.value import Value

AUTHORITY = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~%!$&'()*+,;=]+)?(?::[0-9]*)?")
"""A host, perhaps empty, and perhaps a port (RFC 3986 section 3.2), without user information."""

Field = tuple[bytes, bytes]
Fields = list[Field]


class RequestHead(Value):
    """A request's start: control data and header fields."""

    def __init__(
        self, method: bytes, scheme: bytes, authority: bytes, path: bytes, fields: Fields, protocol: bytes = b""
    ) -> None:
        self.method: Final = method
        self.scheme: Final = scheme
        self.authority: Final = authority
        self.path: Final = path
        """Path and query, in origin form (``/run?x=1``); empty for a plain CONNECT."""
        self.fields: Final = fields
        self.protocol: Final = protocol
        """The ``:protocol`` of an extended CONNECT (RFC 8441), e.g. ``websocket``; empty otherwise."""

    def parts(self) -> tuple[object, ...]:
        return self.method, self.scheme, self.authority, self.path, self.fields, self.protocol


class ResponseHead(Value):
    """A response's start, interim (1xx) or final."""

    def __init__(self, status: int, fields: Fields) -> None:
        self.status: Final = status
        self.fields: Final = fields

    def parts(self) -> tuple[object, ...]:
        return self.status, self.fields
