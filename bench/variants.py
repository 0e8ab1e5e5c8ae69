"""The same handoff under other circumstances, over HTTP/2, in interleaved rounds beside ours and Envoy as they are.

Envoy with its decisions made by a policy server; both with mTLS to the agents; ours with many rules, with many agents,
with many open streams, with leases in Redis, and with two workers, which have them there.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from bench import envoy, gateway, process
from bench.check import check
from bench.memory import Launch
from bench.plan import Plan
from bench.proxy import Kind, Proxy
from bench.rounds import closed
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
    order = random.Random(1)
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
        for number in range(1, plan.rounds + 1):
            say(f"other circumstances: round {number} of {plan.rounds}")
            found = {}
            for proxy in order.sample(proxies, len(proxies)):
                with proxy.blamed():
                    found |= _one(proxy, plan, load_core)
                if proxy.kind.logs:
                    proxy.forget_log()
            rounds.append(found)
    return rounds


def _one(proxy: Proxy, plan: Plan, load_core: int | None) -> dict[str, Result]:
    name = proxy.kind.name
    if proxy.kind is gateway.WORKERS:
        return {name: closed(proxy, "h2", gateway.WORKER_PROCESSES * plan.worker_connections, plan, None, streams=1)}
    found = {name: closed(proxy, "h2", plan.h2_connections, plan, load_core)}
    if proxy.kind is gateway.SHARED:
        found[ALONE] = closed(proxy, "h2", plan.worker_connections, plan, load_core, streams=1)
    return found


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
