"""The trace context of one handoff."""

from __future__ import annotations

import msgspec


class Trace(msgspec.Struct, frozen=True):
    """The trace context of one handoff."""

    header: bytes
    """``traceparent`` for the first agent that is asked."""
    trace_id: str
    flags: int = 0
    base: int = 0
    """What the ids of the handoff's spans are made of; 0 when there will be none."""
    parent: bytes = b""
    """The caller's span, in hexadecimal."""
