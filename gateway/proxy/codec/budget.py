"""What a peer may ask of an HTTP/2 connection that costs it nothing and us something.

Each kind of such frames has an allowance: a burst, a rate at which it comes back, and a share of the real work that the
connection has done, so that a busy connection may do more of everything and a long-lived one never runs out.  What is
within the burst costs one comparison; the clock is read only when a burst is used up.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class Kind(IntEnum):
    """What is counted; `ALLOWANCES` says how much of it there may be, and why."""

    SETTINGS = 0
    """SETTINGS frames, acknowledgements among them, and one more for every eight settings in one."""
    PING = 1
    """PING frames, acknowledgements among them."""
    RESET = 2
    """RST_STREAM frames received, for whatever stream (CVE-2023-44487)."""
    PROVOKED_RESET = 3
    """Streams that we reset because the peer broke a rule on them (CVE-2025-8671)."""
    LATE = 4
    """DATA, and headers, on streams that are over, which are answered with RST_STREAM each."""
    REFUSED = 5
    """Streams opened beyond the limit."""
    EMPTY = 6
    """DATA without a byte of data, or a header block's frame without one, that ends nothing (CVE-2019-9518)."""
    WINDOW_UPDATE = 7
    """WINDOW_UPDATE frames."""
    TINY_WINDOW = 8
    """DATA that we sent in frames of less than 512 bytes, because a window let no more through (CVE-2019-9511)."""
    PRIORITY = 9
    """PRIORITY frames."""
    UNKNOWN = 10
    """Frames of types that we do not know or do not act on."""
    OVERSIZED = 11
    """Requests answered 431: their heads cost us more than they may have cost the peer, by HPACK."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much of a kind a connection may spend."""

    abuse: str
    """The reason told when it is overspent; a label of metrics, so from a closed set."""
    burst: int
    per_second: float
    per_work: float
    """For each unit of `FloodGuard.work`."""


ALLOWANCES: Final[dict[Kind, Allowance]] = {
    Kind.SETTINGS: Allowance("settings-flood", 64, 2.0, 0.0),
    # gRPC measures the path with a PING for each burst of data.
    Kind.PING: Allowance("ping-flood", 200, 10.0, 2.0),
    # Who hedges cancels about as many requests as are answered.
    Kind.RESET: Allowance("rapid-reset", 200, 20.0, 1.0),
    Kind.PROVOKED_RESET: Allowance("made-you-reset", 100, 5.0, 0.1),
    # What is on its way when we answer or reset early: a window of it, in frames of 16 KiB, for each stream.
    Kind.LATE: Allowance("made-you-reset", 1000, 50.0, 20.0),
    Kind.OVERSIZED: Allowance("header-list-too-large", 100, 5.0, 0.1),
    # Who opens streams before it has read our SETTINGS cannot know the limit.
    Kind.REFUSED: Allowance("stream-flood", 1000, 20.0, 1.0),
    Kind.EMPTY: Allowance("empty-frames", 100, 5.0, 0.5),
    # Many give back window for the stream and for the connection with each DATA frame.
    Kind.WINDOW_UPDATE: Allowance("window-update-flood", 1000, 50.0, 10.0),
    Kind.TINY_WINDOW: Allowance("tiny-windows", 100, 20.0, 0.5),
    Kind.PRIORITY: Allowance("priority-flood", 500, 10.0, 5.0),
    # A browser sends a PRIORITY_UPDATE (RFC 9218), or one that means nothing (RFC 8701's idea), with each request.
    Kind.UNKNOWN: Allowance("unknown-frames", 200, 10.0, 4.0),
}


_FULL: Final = [float(ALLOWANCES[kind].burst) for kind in Kind]


class FloodGuard:
    """One connection's allowances.

    Args:
        clock: seconds, never going back.

    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.work = 0
        """Streams answered, and pieces of body sent whole: whoever has the guard counts it up."""
        self.abuse = ""
        """Why the connection must end, once something was overspent."""
        self._clock = clock
        self._left = _FULL.copy()
        self._began = clock()
        self._settled: dict[int, tuple[float, int]] = {}
        """When a kind was last settled, and the work until then; idle connections are many, and settle nothing."""

    def spend(self, kind: int, count: int = 1) -> bool:
        """Take `count` of `kind`; ``False`` when there is not that much left, and `abuse` then says why."""
        left = self._left[kind] - count
        if left < 0:
            left = self._settle(kind) - count
            if left < 0:
                self.abuse = ALLOWANCES[Kind(kind)].abuse
                return False
        self._left[kind] = left
        return True

    def _settle(self, kind: int) -> float:
        """What is left of `kind` with what came back since this was last asked, at most the whole burst."""
        allowance = ALLOWANCES[Kind(kind)]
        now = self._clock()
        at, work = self._settled.get(kind, (self._began, 0))
        back = (now - at) * allowance.per_second + (self.work - work) * allowance.per_work
        self._settled[kind] = now, self.work
        return min(allowance.burst, self._left[kind] + back)
