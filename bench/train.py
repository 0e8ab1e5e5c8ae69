"""Handoffs of many kinds, a few seconds of each: `python -m bench.train`, for a build that counts what it does.

What it counted tells the compiler which way is the usual one (see tools/compiled-wheel).
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench import gateway, machine, memory
from bench.bed import Bed
from bench.check import check
from bench.plan import Plan
from bench.rounds import alone

_PLAN = Plan(warm_up_s=0.5, closed_s=3.0, body_bytes=2**26, sse_streams=200, sse_s=1.0)


def main() -> None:
    """Small requests over both protocols, with agents in the clear and by mTLS, long bodies, event streams."""
    machine.raise_file_limit()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="phoenixflight-train-")))
        bed = Bed(folder, stack)
        for kind in (gateway.GATEWAY, gateway.SECURE):
            proxy = bed.launch(kind)
            stack.callback(proxy.child.stop)
            with proxy.blamed():
                check(proxy)
                alone(proxy, "h2", _PLAN.h2_connections, _PLAN, bed.load_core)
                alone(proxy, "http/1.1", _PLAN.h1_connections, _PLAN, bed.load_core)
        memory.bodies(gateway.GATEWAY, bed.launch, _PLAN, bed.load_core)
        memory.events(gateway.GATEWAY, bed.launch, bed.agents, _PLAN, bed.load_core)


if __name__ == "__main__":
    main()
