"""What the data plane goes by that may change while it runs."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.overload import OverloadSpec
from gateway.proxy.clocks import Clocks
from gateway.proxy.retries import RetryLimits
from gateway.proxy.upstream import UpstreamLimits


@dataclass(frozen=True, slots=True)
class Tuning:
    """Bounds and clocks; what has begun under others keeps its clocks."""

    upstream: UpstreamLimits
    clocks: Clocks
    retries: RetryLimits
    overload: OverloadSpec
    max_in_flight_per_capability: int
    max_pending_per_capability: int
    max_body_bytes: int
    max_timeout_s: float
    bound: float
    """How many times its share of the packets under way an agent takes at most."""
