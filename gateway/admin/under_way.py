"""What is under way now, as it will be told of when it ends."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter

from gateway.handoff import Handoff, Outcome
from gateway.proxy.exchange import Exchange
from gateway.proxy.plane import DataPlane
from gateway.proxy.records import recorded
from gateway.verdict import Decided


def under_way(plane: DataPlane) -> Iterator[tuple[Handoff, Decided]]:
    """Packets that have been decided and have not ended, and the decisions that they began with."""
    now = perf_counter()
    for exchange in plane.exchanges():
        if isinstance(exchange, Exchange) and exchange.forward is not None and not exchange.finished:
            gateway_s = (exchange.decided or now) - exchange.started
            handoff = recorded(exchange, Outcome.OPEN, None, gateway_s, now - exchange.started)
            yield handoff, exchange.decision
