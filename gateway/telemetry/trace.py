"""The trace context of one handoff."""

from __future__ import annotations

from typing import Final

from gateway.value import Value


class Trace(Value):
    """The trace context of one handoff."""

    def __init__(self, header: bytes, trace_id: str, flags: int = 0, base: int = 0, parent: bytes = b"") -> None:
        self.header: Final = header
        """``traceparent`` for the first agent that is asked."""
        self.trace_id: Final = trace_id
        self.flags: Final = flags
        self.base: Final = base
        """What the ids of the handoff's spans are made of; 0 when there will be none."""
        self.parent: Final = parent
        """The caller's span, in hexadecimal."""

    def parts(self) -> tuple[object, ...]:
        return self.header, self.trace_id, self.flags, self.base, self.parent
