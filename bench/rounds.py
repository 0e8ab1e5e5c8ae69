"""The interleaved rounds: all proxies in turns, so that the machine's moods fall on all of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from bench import latency
from bench.load import STREAMS
from bench.plan import Plan
from bench.process import BenchFailure, module, run
from bench.proxy import Proxy, all_blamed
from bench.target import Target

_TOLERATED_ERRORS = 0.01
_DIRECT = "direct"
"""The way without a proxy."""

Result = dict[str, Any]


def measure(
    proxies: list[Proxy], agents: list[int], plan: Plan, core: int | None, say: Callable[[str], None]
) -> list[dict[str, Result]]:
    """Measure `plan.rounds` rounds; gives for each round the result of each proxy by name.

    Raises:
        BenchFailure: a measurement failed, or more than one answer in a hundred was not 200.

    """
    rounds = []
    for number in range(1, plan.rounds + 1):
        say(f"round {number} of {plan.rounds}")
        with all_blamed(proxies):
            timed = _timed(proxies, agents, plan, number, core)
        h2 = side_by_side(proxies, "h2", plan.h2_connections, plan, core)
        h1 = side_by_side(proxies, "http/1.1", plan.h1_connections, plan, core)
        rounds.append({name: one | {"h2": h2[name], "h1": h1[name]} for name, one in timed.items()})
        for proxy in proxies:
            proxy.forget_log()
    return rounds


def _timed(proxies: list[Proxy], agents: list[int], plan: Plan, seed: int, core: int | None) -> dict[str, Result]:
    """What each proxy adds to the time that requests take, those of the same rate side by side."""
    results: dict[str, Result] = {}
    for rate in sorted({proxy.kind.rate for proxy in proxies}):
        beside = [proxy for proxy in proxies if proxy.kind.rate == rate]
        targets = [Target(_DIRECT, agents, "http/1.1", plan.h1_connections)]
        targets += [proxy.target("h2", plan.h2_connections) for proxy in beside]
        found = latency.measure(targets, rate, plan.warm_up_s, plan.rate_s, seed, core)
        for name, one in found.items():
            if one["errors"] > _TOLERATED_ERRORS * one["measured"]:
                raise BenchFailure(f"{one['errors']} errors at {rate}/s through {name}")
        direct = found[_DIRECT]
        for proxy in beside:
            through = found[proxy.kind.name]
            results[proxy.kind.name] = {
                "rate": through,
                "direct": direct,
                "p50_added_ms": through["p50_ms"] - direct["p50_ms"],
                "p99_added_ms": through["p99_ms"] - direct["p99_ms"],
            }
    return results


def side_by_side(
    proxies: list[Proxy], protocol: str, connections: int, plan: Plan, core: int | None, streams: int = STREAMS
) -> dict[str, Result]:
    """Closed-loop load on each in turns, and what a handoff costs under it, by the kinds' names.

    Args:
        proxies: under test.
        protocol: ``h2`` or ``http/1.1``.
        connections: to each, with `streams` requests in flight on those that can have more than one.
        plan: how long.
        core: the load's.
        streams: see there.

    Raises:
        BenchFailure: it failed, or more than one answer in a hundred was not 200.

    """
    sizes = ("--streams", streams, "--warm-up", plan.warm_up_s, "--seconds", plan.closed_s)
    targets = [proxy.target(protocol, connections) for proxy in proxies]
    with all_blamed(proxies):
        command = module("bench.load", *sizes, *(target.argument() for target in targets))
        found: dict[str, Result] = json.loads(run(command, core))
        for name, result in found.items():
            if not result["handoffs"] or result["errors"] > _TOLERATED_ERRORS * sum(result["statuses"].values()):
                raise BenchFailure(f"{name} over {protocol} answered {result['statuses']}")
            result["cpu_us"] = result["cpu_s"] / result["handoffs"] * 1e6
            result["per_s"] = result["handoffs"] / result["seconds"]
            result["core_used"] = result["cpu_s"] / result["seconds"]
            result["core_lost"] = (result["core_busy_s"] - result["cpu_s"]) / result["seconds"]
    return found


def alone(
    proxy: Proxy, protocol: str, connections: int, plan: Plan, core: int | None, streams: int = STREAMS
) -> Result:
    """`side_by_side`, of one."""
    return side_by_side([proxy], protocol, connections, plan, core, streams)[proxy.kind.name]
