"""Four times what the gateway can serve: how much it still serves, and how fast."""

from __future__ import annotations

import json
import statistics
from typing import Any

from bench.memory import Launch
from bench.plan import Plan
from bench.process import module, run
from bench.proxy import Kind, Proxy
from bench.rounds import alone

TIMES = 4
UNLOADED_PER_S = 200

Result = dict[str, Any]


def measure(kind: Kind, launch: Launch, plan: Plan, core: int | None) -> Result:
    """Its peak, then four times as much from callers that honour ``retry-after`` and from callers that do not.

    The peak is of closed-loop load from as many callers as there are of them later, just before and after each flood:
    what a machine can do changes within a minute.  Latency is set against that of a load which is no load.  Agents take
    20 ms, which is little for one that does anything.
    """
    proxy = launch(kind)
    try:
        with proxy.blamed():
            unloaded = _flood(proxy, UNLOADED_PER_S, plan, core, "--honour")
            peaks = [_closed(proxy, plan, core)]
            result: Result = {"unloaded": unloaded}
            for name, manners in (("honouring", "--honour"), ("ignoring", "--no-honour")):
                found = _flood(proxy, TIMES * peaks[-1], plan, core, manners)
                peaks.append(_closed(proxy, plan, core))
                found["goodput_ratio"] = found["good_per_s"] / statistics.fmean(peaks[-2:])
                found["p99_ratio"] = found["p99_ms"] / unloaded["p99_ms"]
                result[name] = found
            result["peak_per_s"] = statistics.fmean(peaks)
            return result
    finally:
        proxy.child.stop()


def _closed(proxy: Proxy, plan: Plan, core: int | None) -> float:
    return float(alone(proxy, "h2", plan.flood_callers, plan, core, streams=1)["per_s"])


def _flood(proxy: Proxy, per_second: float, plan: Plan, core: int | None, manners: str) -> Result:
    command = module(
        "bench.flood",
        *("--port", proxy.site.port, "--certs", proxy.site.certs),
        *("--callers", plan.flood_callers, "--per-second", per_second, manners),
        *("--warm-up", plan.flood_warm_up_s, "--seconds", plan.flood_s),
    )
    result: Result = json.loads(run(command, core))
    return result
