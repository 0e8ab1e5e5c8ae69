"""What has been under way for long."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.proxy.exchange import Exchange
from gateway.proxy.plane import DataPlane
from gateway.verdict import Decided


def begun_between(plane: DataPlane, after: float, until: float) -> Iterator[tuple[Decided, str]]:
    """The decisions of the open exchanges that began then, by `perf_counter`, and the agents that have them."""
    for exchange in plane.exchanges():
        if isinstance(exchange, Exchange) and not exchange.finished and after < exchange.started <= until:
            yield exchange.decision, exchange.agent.name if exchange.agent is not None else ""
