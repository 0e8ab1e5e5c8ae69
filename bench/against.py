"""Builds beside each other: in each turn every one has a short window of load, in a new order each time.

What is compared is the median of the ratios within a turn.  A machine that slows down for a second slows all of them:
this shows smaller differences than rounds of seconds do.  But caches are colder, for others ran a moment before.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from bench import envoy, gateway
from bench.bed import Bed
from bench.call import Connection
from bench.check import check
from bench.client import connect
from bench.load import STREAMS, Closed
from bench.plan import Plan
from bench.process import cpu_s
from bench.proxy import Proxy

_WARM_UP_S = 0.04
_WINDOW_S = 0.12
_FIRST_S = 0.5
"""Before the first window of each: what is done once for a connection, or for the first packet, is done by then."""
_MAX_RATIO = 3.0
"""A window that something else has spoilt says nothing of how far the others spread."""


def compare(executables: list[Path], seconds: float, plan: Plan, console: Console) -> None:
    """Print what a handoff costs in this build, in Envoy and in other builds.

    Args:
        executables: ``phoenixflight`` of the other builds.
        seconds: how long for both protocols together, beside what starting takes.
        plan: how many connections.
        console: where the table goes.

    Raises:
        BenchFailure: one does not start, or does not do the work.

    """
    kinds = {"ours": gateway.GATEWAY, "envoy": envoy.ENVOY}
    for number, executable in enumerate(executables, start=1):
        kinds[str(executable)] = replace(gateway.another(executable), name=f"another-{number}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="phoenixflight-bench-")))
        bed = Bed(folder, stack)
        proxies = {}
        for name, kind in kinds.items():
            proxy = proxies[name] = bed.launch(kind)
            stack.callback(proxy.child.stop)
            with proxy.blamed():
                check(proxy)
        if bed.load_core is not None:
            os.sched_setaffinity(0, {bed.load_core})
        gc.disable()
        for protocol, connections in (("h2", plan.h2_connections), ("http/1.1", plan.h1_connections)):
            console.print(_table(protocol, uvloop.run(_turns(proxies, protocol, connections, seconds / 2))))


async def _turns(proxies: dict[str, Proxy], protocol: str, count: int, seconds: float) -> dict[str, list[float]]:
    """The microseconds of CPU of a handoff, by proxy and turn."""
    opened = {
        name: await connect([proxy.site.port], protocol, proxy.site.certs, count) for name, proxy in proxies.items()
    }
    for name, proxy in proxies.items():
        await _window(opened[name], proxy.child.pid, _FIRST_S)
    found: dict[str, list[float]] = {name: [] for name in proxies}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for name in random.sample(list(proxies), len(proxies)):
            found[name].append(await _window(opened[name], proxies[name].child.pid, _WINDOW_S))
    return found


async def _window(connections: list[Connection], pid: int, seconds: float) -> float:
    load = Closed(connections, STREAMS)
    await asyncio.sleep(_WARM_UP_S)
    handoffs, used = load.statuses[200], cpu_s(pid)
    await asyncio.sleep(seconds)
    handoffs, used = load.statuses[200] - handoffs, cpu_s(pid) - used
    await load.stop()
    return used / max(handoffs, 1) * 1e6


def _table(protocol: str, found: dict[str, list[float]]) -> Table:
    turns = len(found["ours"])
    grid = Table(title=f"{protocol} in, CPU per handoff, {turns} turns", title_justify="left")
    grid.add_column("")
    for heading in ("µs", "/ Envoy", "/ ours"):
        grid.add_column(heading, justify="right")
    for name, costs in found.items():
        over = [_ratio(costs, found[other]) for other in ("envoy", "ours")]
        grid.add_row(name, f"{statistics.median(costs):.0f}", *over)
    return grid


def _ratio(costs: list[float], others: list[float]) -> str:
    """The median of the ratios, and its standard error."""
    ratios = [cost / other for cost, other in zip(costs, others, strict=True)]
    spread = statistics.pstdev([each for each in ratios if each < _MAX_RATIO] or [0.0])
    return f"{statistics.median(ratios):.3f} ± {1.25 * spread / len(ratios) ** 0.5:.3f}"
