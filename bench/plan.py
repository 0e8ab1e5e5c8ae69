"""How long and how much: the sizes of a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """The sizes of one run; times in seconds."""

    rounds: int = 5
    warm_up_s: float = 1.0
    """Before each measured window, on the same connections."""
    closed_s: float = 4.0
    rate_s: float = 10.0
    """Of latency, in turns with the others."""
    recorder_s: float = 5.0
    h2_connections: int = 4
    """With 16 streams each under closed-loop load."""
    h1_connections: int = 32
    body_bytes: int = 2**30
    sse_streams: int = 1000
    sse_s: float = 5.0
    held_streams: int = 5_000
    """Open while handoffs are measured beside them."""
    worker_connections: int = 32
    """To one worker, or to two: enough that both have work at all times, however the system spreads them."""
    worker_streams: int = 4
    """On each of those, under closed-loop load."""
    idle_connections: int = 10_000
    idle_s: float = 5.0
    flood_callers: int = 64
    flood_warm_up_s: float = 5.0
    """Until callers that were all turned away at first have come again."""
    flood_s: float = 10.0


QUICK = Plan(
    rounds=2,
    warm_up_s=0.5,
    closed_s=1.0,
    rate_s=2.0,
    recorder_s=1.5,
    body_bytes=2**28,
    sse_s=2.0,
    held_streams=1000,
    idle_connections=1000,
    idle_s=2.0,
    flood_s=4.0,
)
