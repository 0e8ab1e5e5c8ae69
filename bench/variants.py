"""The same handoff under other circumstances, over HTTP/2, in interleaved rounds beside ours and Envoy as they are.

Envoy with its decisions made by a policy server; both with mTLS to the agents; ours with many rules, with many agents,
with many open streams, and with leases in Redis.  And two workers, who have them there, beside one, each of the three
held to half a core: so the load has a core on a machine with two, too.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import psutil

from bench import envoy, gateway, process, quota
from bench.check import check
from bench.memory import Launch
from bench.plan import Plan
from bench.proxy import Kind, Proxy
from bench.rounds import side_by_side

Result = dict[str, Any]
_SHARE = 0.5
"""Of a core, for each worker: what is left of two is enough for the load, the agents and Redis."""


def measure(
    kinds: list[Kind], launch: Launch, plan: Plan, load_core: int | None, say: Callable[[str], None]
) -> list[dict[str, Result]]:
    """For each round, the results by the kinds' names.

    What takes a redis-server is left out where there is none, and the workers where a process cannot be limited.

    Raises:
        BenchFailure: a proxy does not do its work, or a measurement failed.

    """
    chosen = []
    if gateway.GATEWAY in kinds:
        chosen += [gateway.GATEWAY, gateway.SECURE, gateway.RULES, gateway.AGENTS, gateway.STREAMS]
        if shutil.which("redis-server"):
            chosen += [gateway.SHARED, *(gateway.WORKERS if quota.possible() else ())]
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
                if kind in gateway.WORKERS:
                    for pid in _serving(proxy):
                        running.enter_context(quota.limited(pid, _SHARE))
                if kind is gateway.STREAMS:
                    running.callback(_held(proxy, plan, load_core).stop)
            proxies.append(proxy)
        limited = [proxy for proxy in proxies if proxy.kind in gateway.WORKERS]
        beside = [proxy for proxy in proxies if proxy not in limited]
        for number in range(1, plan.rounds + 1):
            say(f"other circumstances: round {number} of {plan.rounds}")
            found = side_by_side(beside, "h2", plan.h2_connections, plan, load_core)
            if limited:
                found |= side_by_side(limited, "h2", plan.worker_connections, plan, None, plan.worker_streams)
            for proxy in proxies:
                if proxy.kind.logs:
                    proxy.forget_log()
            rounds.append(found)
    return rounds


def _serving(proxy: Proxy) -> list[int]:
    """The processes that serve, all of them: its workers, where it has any."""
    proxy.child.wait_ready(f"http://127.0.0.1:{proxy.site.admin}/readyz")  # the first one serves before others start
    return [worker.pid for worker in psutil.Process(proxy.child.pid).children()] or [proxy.child.pid]


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
