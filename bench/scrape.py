"""A scrape of a gateway that has handed work to 500 agents with 50 capabilities each, of every one at every one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from gateway.decision import NO_EVIDENCE, Snapshot, judge
from gateway.handoff import Handoff, Outcome
from gateway.identity import Principal, SpiffeId
from gateway.messages import RequestHead
from gateway.packet import parse, sift
from gateway.policy import PolicySet
from gateway.policy.load import load_policies
from gateway.routing import Agent
from gateway.telemetry.exposition import in_slices
from gateway.telemetry.membership import MembershipMetrics, Readings
from gateway.telemetry.metrics import Metrics

AGENTS = 500
CAPABILITIES = 50
_NOW = 1_800_000_000.0
_CALLER = Principal(SpiffeId("spiffe://mesh.local/ns/agents/sa/planner"))
_POLICY = """
apiVersion: phoenixflight.io/v1
kind: TrustPolicy
metadata: {name: bench}
spec:
  capabilities: ["*"]
  rules: [{name: all, effect: allow, from: ["spiffe://mesh.local"]}]
"""


def busy_metrics() -> Metrics:
    """The metrics of such a gateway, with a packet under way for each capability at every tenth agent."""
    capabilities = [f"work.kind-{number}" for number in range(CAPABILITIES)]
    agents = [Agent(f"executor-{n}", "127.0.0.1", 7100, frozenset(capabilities)) for n in range(AGENTS)]
    snapshot = Snapshot("bench", PolicySet(load_policies({"bench.yaml": _POLICY})), tuple(agents))
    metrics = Metrics()
    for capability in capabilities:
        head = RequestHead(
            b"POST", b"https", b"flight.internal", b"/run", [(b"flight-capability", capability.encode())]
        )
        route: Any = judge(
            parse(head, sift(head.fields).flight, lambda: "none"), head, _CALLER, NO_EVIDENCE, snapshot, _NOW
        ).route
        for agent in agents[::10]:
            route.load.begin(agent.name)
        for agent in agents:
            handoff = Handoff(
                time=datetime.fromtimestamp(_NOW, UTC),
                outcome=Outcome.COMPLETED,
                caller=_CALLER.id,
                capability=capability,
                agent=agent.name,
                policy="bench",
                gateway_ms=0.1,
                sent_ms=0.2,
                answered_ms=10.0,
                duration_ms=11.0,
            )
            metrics.handoff(handoff, 0.0001, 0.011)
    nothing: Callable[[], Any] = dict
    readings = Readings(lambda: snapshot, nothing, nothing, nothing, nothing, lambda: 0, nothing)
    metrics.registry.register(MembershipMetrics(readings))
    return metrics


async def scraped(metrics: Metrics) -> tuple[float, float]:
    """How long a scrape takes beside an idle loop, and the longest that the loop has to wait; in milliseconds."""
    longest = 0.0

    async def turn() -> None:
        nonlocal longest
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    turning = asyncio.create_task(turn())
    await asyncio.sleep(0)
    began = time.perf_counter()
    await in_slices(metrics.pieces(openmetrics=True))
    took = time.perf_counter() - began
    await asyncio.sleep(0)
    turning.cancel()
    return took * 1e3, longest * 1e3
