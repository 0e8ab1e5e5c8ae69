"""What it costs to be told everything: traces, access log and flight recorder on, against all of them off.

Metrics are counted in both: they cannot be turned off.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx

from bench import latency
from bench.check import check
from bench.gateway import GATEWAY, UNTOLD
from bench.memory import Launch
from bench.plan import Plan
from bench.process import BenchFailure, module, run
from bench.proxy import Proxy
from bench.rounds import side_by_side
from bench.table import RECORDS_PER_S

BESIDE_PER_S = 500
"""Handoffs that the gateway serves on the same core while records are fed, and records itself."""

Result = dict[str, Any]


def measure(
    launch: Launch, plan: Plan, proxy_core: int | None, load_core: int | None, say: Callable[[str], None]
) -> Result:
    """Rounds of closed-loop load over HTTP/2 through both, interleaved; then the recorder at `RECORDS_PER_S`.

    Raises:
        BenchFailure: a measurement failed, or what was handed on was not recorded.

    """
    rounds: list[Result] = []
    with ExitStack() as running:
        proxies = []
        for kind in (GATEWAY, UNTOLD):
            proxy = launch(kind)
            running.callback(proxy.child.stop)
            proxies.append(proxy)
        for proxy in proxies:
            with proxy.blamed():
                check(proxy)
        told = proxies[0]
        for number in range(1, plan.rounds + 1):
            say(f"everything on and off: round {number} of {plan.rounds}")
            with told.blamed():
                before = _recorded(told)
            found = side_by_side(proxies, "h2", plan.h2_connections, plan, load_core)
            with told.blamed():
                one = found[told.kind.name]
                one["lost_records"] = _lost(before, _recorded(told), sum(one["statuses"].values()))
            told.forget_log()
            rounds.append(found)
        say(f"{RECORDS_PER_S:,} records a second")
        beside = _beside(told, plan, proxy_core, load_core)
    return {"rounds": rounds, "recorder": beside}


def _recorded(proxy: Proxy) -> dict[str, float]:
    """What its metrics say of the recorder."""
    text = httpx.get(f"http://127.0.0.1:{proxy.site.admin}{proxy.kind.metrics_path}", trust_env=False).text
    prefix = "phoenixflight_recorder_"
    lines = (line.split(" ") for line in text.splitlines() if line.startswith(prefix))
    return {name.removeprefix(prefix): float(value) for name, value, *_ in lines}


def _lost(before: dict[str, float], after: dict[str, float], handoffs: int) -> int:
    """Records that were lost, of so many handoffs.

    Raises:
        BenchFailure: the recorder does not record.

    """
    if after["records_total"] <= before["records_total"]:
        raise BenchFailure(f"nothing was recorded of {handoffs} handoffs")
    return int(after["lost_records_total"] - before["lost_records_total"])


def _beside(proxy: Proxy, plan: Plan, proxy_core: int | None, load_core: int | None) -> Result:
    """The recorder at its rate on the proxy's core, which serves handoffs meanwhile."""
    with ThreadPoolExecutor(1) as beside:
        target = proxy.target("h2", plan.h2_connections)
        waiting = beside.submit(
            latency.measure, [target], BESIDE_PER_S, plan.warm_up_s, plan.recorder_s, seed=1, core=load_core
        )
        command = module("bench.recorder", "--per-second", RECORDS_PER_S, "--seconds", plan.recorder_s)
        result: Result = json.loads(run(command, proxy_core))
        result["traffic"] = waiting.result()[target.name]
    return result
