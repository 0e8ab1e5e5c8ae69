"""A line of the access log that stands for many."""

from __future__ import annotations

from datetime import datetime

import msgspec


class SuppressedKind(msgspec.Struct, frozen=True, omit_defaults=True, rename={"caller": "from"}):
    """Handoffs alike, without lines of their own."""

    outcome: str
    count: int
    reason: str = ""
    caller: str = ""


class Suppressed(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line instead of many."""

    time: datetime
    """When it was written, UTC."""
    suppressed: int
    """Handoffs that got no line since the one like this before, or since the first of them."""
    kinds: tuple[SuppressedKind, ...] = ()
    """The most frequent ones first."""
    others: int = 0
    """Those of other kinds."""
