"""The same handoff under other circumstances, over HTTP/2, in interleaved rounds beside ours and Envoy as they are.

Envoy with its decisions made by a policy server; both with mTLS to the agents; ours with many rules, with many agents,
with many open streams, with leases in Redis, and with two workers, which have them there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from bench import envoy, gateway, process
from bench.check import check
from bench.memory import Launch
from bench.plan import Plan
from bench.proxy import Kind, Proxy
from bench.rounds import alone, side_by_side
from bench.table import ALONE

Result = dict[str, Any]


def measure(
    kinds: list[Kind], launch: Launch, plan: Plan, load_core: int | None, say: Callable[[str], None]
) -> list[dict[str, Result]]:
    """For each round, the results by the kinds' names, and `ALONE`.

    What takes a redis-server is left out where there is none.

    Raises:
        BenchFailure: a proxy does not do its work, or a measurement failed.

    """
    chosen = []
    if gateway.GATEWAY in kinds:
        chosen += [gateway.GATEWAY, gateway.SECURE, gateway.RULES, gateway.AGENTS, gateway.STREAMS]
        chosen += [gateway.SHARED, gateway.WORKERS] if shutil.which("redis-server") else []
    if envoy.ENVOY in kinds:
        chosen += [envoy.ENVOY, envoy.SECURE, envoy.ASKING]
    rounds = []
    with ExitStack() as running:
        proxies = []
        for kind in chosen:
            proxy = launch(kind)
            running.callback(proxy.child.stop)
            with proxy.blamed():
                check(proxy)
                if kind is gateway.STREAMS:
                    running.callback(_held(proxy, plan, load_core).stop)
            proxies.append(proxy)
        beside = [proxy for proxy in proxies if proxy.kind is not gateway.WORKERS]
        for number in range(1, plan.rounds + 1):
            say(f"other circumstances: round {number} of {plan.rounds}")
            found = side_by_side(beside, "h2", plan.h2_connections, plan, load_core)
            for proxy in proxies:
                if proxy.kind is gateway.SHARED:
                    found[ALONE] = alone(proxy, "h2", plan.worker_connections, plan, load_core, streams=1)
                elif proxy.kind is gateway.WORKERS:
                    # They take both cores, and the load what they leave.
                    connections = gateway.WORKER_PROCESSES * plan.worker_connections
                    found[proxy.kind.name] = alone(proxy, "h2", connections, plan, None, streams=1)
                if proxy.kind.logs:
                    proxy.forget_log()
            rounds.append(found)
    return rounds


def _held(proxy: Proxy, plan: Plan, core: int | None) -> process.Child:
    """Streams through the proxy, which stay open."""
    command = process.module(
        "bench.streams",
        "hold",
        *("--port", proxy.site.port, "--certs", proxy.site.certs, "--streams", plan.held_streams),
    )
    child = process.start("open streams", command, proxy.site.folder / "streams.log", core)
    child.first_line()
    return child
