"""Long bodies, many open streams, many idle connections: each against a fresh process, so that no peak hides growth."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bench.plan import Plan
from bench.process import module, run
from bench.proxy import Kind, Proxy
from bench.rounds import alone

_WARMING = Plan(warm_up_s=0.0, closed_s=0.5)

Result = dict[str, Any]
Launch = Callable[[Kind], Proxy]
"""Starts a fresh process of a proxy."""


def bodies(kind: Kind, launch: Launch, plan: Plan, core: int | None) -> dict[str, Result]:
    """One long body each way over each protocol, by ``h2 up`` and so on."""
    results = {}
    for protocol in ("h2", "http/1.1"):
        for direction in ("up", "down"):
            with _warm(kind, launch, core) as proxy:
                command = module(
                    "bench.streams",
                    "body",
                    *("--port", proxy.site.port, "--certs", proxy.site.certs, "--pid", proxy.child.pid),
                    *("--protocol", protocol, "--direction", direction, "--size", plan.body_bytes),
                )
                result: Result = json.loads(run(command, core))
            result["cpu_s_per_gib"] = result["cpu_s"] / result["bytes"] * 2**30
            results[f"{protocol} {direction}"] = result
    return results


def events(kind: Kind, launch: Launch, agents: list[int], plan: Plan, core: int | None) -> dict[str, Result]:
    """Many open event streams over each protocol, and from the agents directly."""
    results = {}
    for protocol, connections in (("h2", 10), ("http/1.1", plan.sse_streams)):
        with _warm(kind, launch, core) as proxy:
            site, pid = proxy.site, proxy.child.pid
            results[protocol] = _sse([site.port], pid, protocol, connections, plan, core, "--certs", site.certs)
            if protocol == "http/1.1":
                results["direct"] = _sse(agents, pid, protocol, connections, plan, core)
    return results


def idle(kind: Kind, launch: Launch, plan: Plan, core: int | None) -> Result:
    """Many idle connections over HTTP/2, and others' requests beside them."""
    with _warm(kind, launch, core) as proxy:
        command = module(
            "bench.idle",
            *("--port", proxy.site.port, "--certs", proxy.site.certs, "--pid", proxy.child.pid),
            *("--connections", plan.idle_connections, "--seconds", plan.idle_s),
        )
        result: Result = json.loads(run(command, core))
    return result


def _sse(
    ports: list[int],
    pid: int,
    protocol: str,
    connections: int,
    plan: Plan,
    core: int | None,
    *more: object,
) -> Result:
    command = module(
        "bench.streams",
        "sse",
        *(argument for port in ports for argument in ("--port", port)),
        *("--pid", pid, "--protocol", protocol, "--connections", connections),
        *("--streams", plan.sse_streams, "--seconds", plan.sse_s, *more),
    )
    result: Result = json.loads(run(command, core))
    return result


@contextmanager
def _warm(kind: Kind, launch: Launch, core: int | None) -> Iterator[Proxy]:
    """A fresh process that has served a second of requests, so that its caches and pools are there."""
    proxy = launch(kind)
    try:
        with proxy.blamed():
            for protocol, connections in (("h2", 4), ("http/1.1", 8)):
                alone(proxy, protocol, connections, _WARMING, core)
            yield proxy
    finally:
        proxy.child.stop()
