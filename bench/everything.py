"""What it costs to be told everything: traces, access log and flight recorder on, against all of them off.

Metrics are counted in both: they cannot be turned off.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx

from bench.check import check
from bench.gateway import GATEWAY, UNTOLD
from bench.memory import Launch
from bench.plan import Plan
from bench.process import BenchFailure, module, run
from bench.proxy import Proxy
from bench.rounds import closed
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
    order = random.Random(1)
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
        for number in range(1, plan.rounds + 1):
            say(f"everything on and off: round {number} of {plan.rounds}")
            found: Result = {}
            for proxy in order.sample(proxies, len(proxies)):
                with proxy.blamed():
                    before = _recorded(proxy) if proxy.kind is GATEWAY else {}
                    found[proxy.kind.name] = one = closed(proxy, "h2", plan.h2_connections, plan, load_core)
                    if proxy.kind is GATEWAY:
                        one["lost_records"] = _lost(before, _recorded(proxy), sum(one["statuses"].values()))
                        proxy.forget_log()
            rounds.append(found)
        say(f"{RECORDS_PER_S:,} records a second")
        beside = _beside(proxies[0], plan, proxy_core, load_core)
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
        traffic = module(
            "bench.load",
            "rate",
            *("--port", proxy.site.port, "--certs", proxy.site.certs),
            *("--protocol", "h2", "--connections", plan.h2_connections),
            *("--per-second", BESIDE_PER_S, "--warm-up", plan.warm_up_s, "--seconds", plan.rate_s, "--seed", 1),
        )
        waiting = beside.submit(run, traffic, load_core)
        command = module("bench.recorder", "--per-second", RECORDS_PER_S, "--seconds", plan.rate_s)
        result: Result = json.loads(run(command, proxy_core))
        result["traffic"] = json.loads(waiting.result())
    return result
