"""Four times what the gateway can serve: how much it still serves, and how fast."""

from __future__ import annotations

import json
from typing import Any

from bench.memory import Launch
from bench.plan import Plan
from bench.process import module, run
from bench.proxy import Kind, Proxy

TIMES = 4
UNLOADED_PER_S = 200

Result = dict[str, Any]


def measure(kind: Kind, launch: Launch, plan: Plan, core: int | None) -> Result:
    """Its peak, then four times as much from callers that honour ``retry-after`` and from callers that do not.

    The peak is of closed-loop load from as many callers as there are of them later; latency is set against that of a
    load which is no load.  Agents take 20 ms, which is little for one that does anything.
    """
    proxy = launch(kind)
    try:
        with proxy.blamed():
            peak = _closed(proxy, plan, core)
            unloaded = _flood(proxy, UNLOADED_PER_S, plan, core, "--honour")
            result: Result = {"peak_per_s": peak, "unloaded": unloaded}
            for name, manners in (("honouring", "--honour"), ("ignoring", "--no-honour")):
                found = _flood(proxy, TIMES * peak, plan, core, manners)
                found["goodput_ratio"] = found["good_per_s"] / peak
                found["p99_ratio"] = found["p99_ms"] / unloaded["p99_ms"]
                result[name] = found
            return result
    finally:
        proxy.child.stop()


def _closed(proxy: Proxy, plan: Plan, core: int | None) -> float:
    command = module(
        "bench.load",
        "closed",
        *("--port", proxy.site.port, "--certs", proxy.site.certs, "--pid", proxy.child.pid),
        *("--connections", plan.flood_callers, "--streams", 1),
        *("--warm-up", plan.warm_up_s, "--seconds", plan.closed_s),
    )
    result: Result = json.loads(run(command, core))
    return float(result["handoffs"] / result["seconds"])


def _flood(proxy: Proxy, per_second: float, plan: Plan, core: int | None, manners: str) -> Result:
    command = module(
        "bench.flood",
        *("--port", proxy.site.port, "--certs", proxy.site.certs),
        *("--callers", plan.flood_callers, "--per-second", per_second, manners),
        *("--warm-up", plan.flood_warm_up_s, "--seconds", plan.flood_s),
    )
    result: Result = json.loads(run(command, core))
    return result
