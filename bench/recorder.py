"""The flight recorder alone: `python -m bench.recorder …` feeds it at a steady rate and prints one line of JSON."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
import uvloop

from bench.micro import handed_on
from bench.process import Watch
from gateway.recorder import Recorder, RecorderSpec
from gateway.recorder.compose import record_of

_TICK_S = 0.005
"""Records come in small groups, as packets do."""


async def _feed(folder: Path, per_second: float, seconds: float) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    refused: list[bool] = []
    spec = RecorderSpec(folder=folder)
    recorder = Recorder(loop, spec, None, refused.append, clock=time.time, entropy=os.urandom)
    handoff, decided = handed_on()
    watch = Watch(os.getpid())
    cpu, began, fed = watch.cpu_s(), loop.time(), 0
    while (passed := loop.time() - began) < seconds:
        for _ in range(int(passed * per_second) - fed):
            recorder.add(handoff, decided, record_of(handoff, decided))
            fed += 1
        await asyncio.sleep(_TICK_S)
    took = loop.time() - began
    written = recorder.records
    cpu = watch.cpu_s() - cpu
    recorder.close()
    return {
        "seconds": took,
        "fed": fed,
        "written": recorder.records,
        "kept_per_s": (fed - recorder.lost) / took,
        "behind_s": (fed - written) / per_second,
        "lost": recorder.lost,
        "refusing": len(refused),
        "cpu_share": cpu / took,
    }


def main(
    per_second: Annotated[float, typer.Option(help="Records.")],
    seconds: Annotated[float, typer.Option(help="How long.")],
) -> None:
    """Print what became of so many records a second, written as a gateway writes them."""
    with TemporaryDirectory(prefix="phoenixflight-bench-recorder-") as folder:
        print(json.dumps(uvloop.run(_feed(Path(folder), per_second, seconds))))


if __name__ == "__main__":
    typer.run(main)
