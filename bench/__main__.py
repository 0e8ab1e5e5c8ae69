"""`python -m bench`: start everything, measure in interleaved rounds, report."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench import (
    envoy,
    everything,
    gateway,
    machine,
    memory,
    micro,
    naive,
    overload,
    plot,
    regression,
    report,
    rounds,
    table,
    variants,
)
from bench.against import compare
from bench.bed import Bed
from bench.check import check
from bench.plan import QUICK, Plan
from bench.process import BenchFailure
from bench.proxy import Kind

KINDS = {kind.name: kind for kind in (gateway.GATEWAY, envoy.ENVOY, naive.NAIVE)}
_OUT = Path(__file__).parent / "out"
_AGAINST_S = 90.0
"""How long builds are compared."""
_WIDTH = 185
"""Columns of the table where there is no terminal to ask."""


def _measure(kinds: list[Kind], plan: Plan, console: Console) -> table.Measured:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="phoenixflight-bench-")))
        bed = Bed(folder, stack)
        # What is short comes first, so that a failure costs little time.
        bodies = {}
        for kind in kinds:
            if kind is not naive.NAIVE:
                console.print(f"long bodies: {kind.name}")
                bodies[kind.name] = memory.bodies(kind, bed.launch, plan, bed.load_core)
        events = {}
        if gateway.GATEWAY in kinds:
            console.print("open event streams: ours")
            events = memory.events(gateway.GATEWAY, bed.launch, bed.agents, plan, bed.load_core)
        flooded = {}
        if gateway.GATEWAY in kinds:
            console.print("four times the load: ours")
            flooded = overload.measure(gateway.GATEWAY, bed.launch, plan, bed.load_core)
        told = {}
        if gateway.GATEWAY in kinds:
            told = everything.measure(bed.launch, plan, bed.proxy_core, bed.load_core, console.print)
        others = []
        if gateway.GATEWAY in kinds:
            others = variants.measure(kinds, bed.launch, plan, bed.load_core, console.print)
        idle = {}
        for kind in kinds:
            if kind is not naive.NAIVE:
                console.print(f"idle connections: {kind.name}")
                idle[kind.name] = memory.idle(kind, bed.launch, plan, bed.load_core)
        with ExitStack() as running:
            proxies = []
            for kind in kinds:
                console.print(f"starting {kind.title}", highlight=False)
                proxy = bed.launch(kind)
                running.callback(proxy.child.stop)
                with proxy.blamed():
                    check(proxy)
                proxies.append(proxy)
            found = rounds.measure(proxies, bed.agents, plan, bed.load_core, console.print)
    return table.Measured(found, bodies, events, idle, flooded, told, others)


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Two short rounds: a look, not a result.")] = False,
    only: Annotated[str, typer.Option(help=f"Comma-separated, of: {', '.join(KINDS)}.")] = ",".join(KINDS),
    count: Annotated[int | None, typer.Option("--rounds", help="5 of them, or 2 with --quick.", min=1)] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            help="The phoenixflight of another build: only that, beside ours; may be given several times.", exists=True
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where results.json and results.png go.")] = _OUT,
    record: Annotated[bool, typer.Option("--record", help="Later runs are compared with this one.")] = False,
) -> None:
    """Measure this gateway, Envoy and a plain Python proxy doing the same work, side by side.

    The proxy under test has core 0 to itself, load and agents share core 1.  Takes some minutes on an otherwise idle
    machine; anything else that runs meanwhile shows in the numbers.
    """
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    names = only.split(",")
    if unknown := set(names) - KINDS.keys():
        raise typer.BadParameter(f"no such proxy: {', '.join(sorted(unknown))}", param_hint="--only")
    kinds = [kind for name, kind in KINDS.items() if name in names]
    plan = QUICK if quick else Plan()
    if count:
        plan = Plan(**{**asdict(plan), "rounds": count})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that everything is stopped
    machine.raise_file_limit()
    about = machine.describe()
    began = time.monotonic()
    try:
        if against:
            compare(against, _AGAINST_S, plan, console)
            return
        measured = _measure(kinds, plan, console)
    except BenchFailure as failure:
        console.print(str(failure), style="red", markup=False, highlight=False)
        raise typer.Exit(1) from None
    console.print("parts of a decision")
    parts = micro.measure()
    rows = table.rows(measured, plan)
    notes = report.notes(kinds, measured, plan, about)
    report.show(console, kinds, rows, notes)
    micro.show(console, parts)
    out.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": about,
        "plan": asdict(plan),
        "took_s": round(time.monotonic() - began),
        "summary": [asdict(row) for row in rows],
        "parts": [asdict(part) for part in parts],
        "notes": notes,
        "raw": asdict(measured),
    }
    (out / "results.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    plot.draw(out / "results.png", kinds, rows, about)
    worse = regression.slower(rows)
    if record:
        regression.record(rows, about["date"])
    console.print(f"{document['took_s']} s; written: {out / 'results.json'}, {out / 'results.png'}")
    for each in worse:
        told = f"SLOWER than on record: {each.label}: {each.now:.2f} ×, was {each.before:.2f} ×"
        console.print(told, style="red", markup=False, highlight=False)
    if worse and not quick:
        raise typer.Exit(3)


if __name__ == "__main__":
    typer.run(main)
