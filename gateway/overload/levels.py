"""From readings of memory and of the event loop's lag to what is still taken on.  Pure."""

from __future__ import annotations

from enum import IntEnum

MEMORY_STEPS = (0.80, 0.90, 0.95)
"""Shares of the memory there is at which each level begins."""
LAG_STEPS = (0.2, 0.5, 1.0)
"""Likewise, of the lag there may be."""
HYSTERESIS = 0.05
"""Of the same measure: so far below its beginning a level ends."""


class Level(IntEnum):
    """What is no longer done, each with all before it."""

    NORMAL = 0
    NO_KEEP_ALIVE = 1
    """Connections are closed when nothing is under way on them."""
    NO_STREAMS = 2
    """New requests get 503."""
    NO_CONNECTIONS = 3
    """New connections are closed at once."""


def next_level(level: Level, measure: float, steps: tuple[float, ...]) -> Level:
    """The level by one measure: up at once, down only when it is well below.

    Args:
        level: by this measure, so far.
        measure: a share, 1 for all there is.
        steps: where each level above the normal one begins.

    """
    up = Level(sum(measure >= step for step in steps))
    down = Level(sum(measure >= step - HYSTERESIS for step in steps))
    return max(up, min(level, down))


def smoothed(lag_s: float, reading_s: float) -> float:
    """The event loop's lag so far and a new reading, as one: a single hiccup is no trend."""
    return 0.8 * lag_s + 0.2 * reading_s
