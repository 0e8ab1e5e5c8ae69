"""The interleaved rounds: every proxy in turn, in a new order each time, so that the machine's moods spread evenly."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from bench.load import STREAMS
from bench.plan import Plan
from bench.process import BenchFailure, module, run
from bench.proxy import Proxy

_TOLERATED_ERRORS = 0.01

Result = dict[str, Any]


def measure(
    proxies: list[Proxy], agents: list[int], plan: Plan, core: int | None, say: Callable[[str], None]
) -> list[dict[str, Result]]:
    """Measure `plan.rounds` rounds; gives for each round the result of each proxy by name.

    Raises:
        BenchFailure: a measurement failed, or more than one answer in a hundred was not 200.

    """
    order = random.Random(1)
    rounds = []
    for number in range(1, plan.rounds + 1):
        names = [proxy.kind.name for proxy in order.sample(proxies, len(proxies))]
        say(f"round {number} of {plan.rounds}: {', '.join(names)}")
        by_name = {proxy.kind.name: proxy for proxy in proxies}
        direct = {
            rate: _rate(agents, "http/1.1", None, plan, rate, number, core)
            for rate in sorted({proxy.kind.rate for proxy in proxies})
        }
        results = {}
        for name in names:
            with by_name[name].blamed():
                results[name] = _one(by_name[name], direct, plan, number, core)
        rounds.append(results)
    return rounds


def _one(proxy: Proxy, direct: dict[float, Result], plan: Plan, seed: int, core: int | None) -> Result:
    rate = proxy.kind.rate
    through = _rate([proxy.site.port], "h2", proxy, plan, rate, seed, core)
    result = {
        "h2": closed(proxy, "h2", plan.h2_connections, plan, core),
        "h1": closed(proxy, "http/1.1", plan.h1_connections, plan, core),
        "rate": through,
        "direct": direct[rate],
        "p50_added_ms": through["p50_ms"] - direct[rate]["p50_ms"],
        "p99_added_ms": through["p99_ms"] - direct[rate]["p99_ms"],
    }
    proxy.forget_log()
    return result


def closed(
    proxy: Proxy, protocol: str, connections: int, plan: Plan, core: int | None, streams: int = STREAMS
) -> Result:
    """Closed-loop load, and what a handoff costs under it.

    Args:
        proxy: under test.
        protocol: ``h2`` or ``http/1.1``.
        connections: with `streams` requests in flight on each that can have more than one.
        plan: how long.
        core: the load's.
        streams: see there.

    Raises:
        BenchFailure: it failed, or more than one answer in a hundred was not 200.

    """
    command = module(
        "bench.load",
        "closed",
        *("--port", proxy.site.port, "--certs", proxy.site.certs, "--pid", proxy.child.pid),
        *("--protocol", protocol, "--connections", connections, "--streams", streams),
        *("--warm-up", plan.warm_up_s, "--seconds", plan.closed_s),
    )
    result: Result = json.loads(run(command, core))
    if not result["handoffs"] or result["errors"] > _TOLERATED_ERRORS * sum(result["statuses"].values()):
        raise BenchFailure(f"{proxy.kind.title} over {protocol} answered {result['statuses']}")
    result["cpu_us"] = result["cpu_s"] / result["handoffs"] * 1e6
    result["per_s"] = result["handoffs"] / result["seconds"]
    result["core_used"] = result["cpu_s"] / result["seconds"]
    result["core_lost"] = (result["core_busy_s"] - result["cpu_s"]) / result["seconds"]
    return result


def _rate(
    ports: list[int],
    protocol: str,
    proxy: Proxy | None,
    plan: Plan,
    rate: float,
    seed: int,
    core: int | None,
) -> Result:
    command = module(
        "bench.load",
        "rate",
        *(argument for port in ports for argument in ("--port", port)),
        *("--certs", proxy.site.certs) if proxy is not None else (),
        *("--protocol", protocol, "--connections", plan.h2_connections if protocol == "h2" else plan.h1_connections),
        *("--per-second", rate, "--warm-up", plan.warm_up_s, "--seconds", plan.rate_s, "--seed", seed),
    )
    result: Result = json.loads(run(command, core))
    if result["errors"] > _TOLERATED_ERRORS * result["measured"]:
        where = proxy.kind.title if proxy is not None else "nothing but the agents"
        raise BenchFailure(f"{result['errors']} errors at {rate}/s through {where}")
    return result
