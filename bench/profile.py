"""Where the time of a handoff goes: `python -m bench.profile` samples a gateway under load, and prints the split.

It takes Linux's perf, and the rights to use it.  A sample belongs to the innermost of its frames that says what it is
part of: memory that OpenSSL asks for is TLS, a list that the recorder makes is telemetry.  What is called from none of
them is glue: connections, exchanges, the event loop, the interpreter.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench import gateway, process
from bench.bed import Bed
from bench.check import check
from bench.plan import Plan
from bench.process import BenchFailure
from bench.rounds import alone

PARTS = ("TLS", "socket", "HTTP/2 codec", "HTTP/1.1 codec", "decision", "protections", "telemetry", "glue")

_RULES = [
    (part, re.compile(pattern))
    for part, pattern in (
        # In the kernel: files are the log's and the recorder's, all else of a call is the network's.
        ("socket", r"\b(sock_|tcp_|inet_|__sys_(send|recv)|do_epoll|ep_poll|__x64_sys_epoll)"),
        ("telemetry", r"\b(vfs_(write|fsync)|ext4_|xfs_|ovl_|ksys_write|do_fsync)"),
        ("TLS", r"lib(ssl|crypto)|/_ssl\.|CPyDef_tls_"),
        ("HTTP/2 codec", r"nghttp2|jh2|_hazmat|CPyDef_(http2|budget|trailers)_"),
        ("HTTP/1.1 codec", r"llhttp|httptools|\b_http1\.|CPyDef_http1_"),
        ("telemetry", r"msgspec|CPyDef_(telemetry|metrics|families|records)_"),
        ("decision", r"CPyDef_(decision|packet|load|placement|gate)_"),
        ("protections", r"CPyDef_(door|queue|caps|manners|health)_"),
        ("glue", r"CPyDef_(arrival|body|connection|downstream|exchange|plane|upload|upstream)_"),
        ("socket", r"\buv__|\buv_(write|try_write|read)|\b(__)?(send|recv|sendmsg|recvmsg|writev|epoll_p?wait)\b"),
    )
]
_FAULT = re.compile(r"exc_page_fault")
_COMPILED = re.compile(r"\bCPyDef_(\w+)")
_HERTZ = 1999


def _part(frames: list[str]) -> str:
    """What a sample is part of; its frames from the inside out, each symbol and where it is."""
    fault = next((at for at, frame in enumerate(frames) if _FAULT.search(frame)), -1)
    for frame in frames[fault + 1 :]:  # memory that is touched for the first time belongs to who touched it
        for part, pattern in _RULES:
            if pattern.search(frame):
                return part
    return "glue"


def split(script: str) -> tuple[Counter[str], Counter[str]]:
    """Samples of each part, and of the innermost functions of each; of what ``perf script -F ip,sym,dso`` prints."""
    parts: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    for sample in script.split("\n\n"):
        frames = [line.strip().partition(" ")[2] for line in sample.splitlines() if line.strip()]
        if not frames:
            continue
        part = _part(frames)
        parts[part] += 1
        compiled = next((found[1] for frame in frames if (found := _COMPILED.search(frame))), frames[0])
        functions[f"{part}: {compiled}"] += 1
    return parts, functions


def _sampled(pid: int, seconds: float, folder: Path) -> str:
    perf = shutil.which("perf")
    if perf is None:
        raise BenchFailure("there is no perf here (Debian: linux-perf)")
    data = folder / "perf.data"
    record = [perf, "record", "-q", "-F", str(_HERTZ), "-g", "--call-graph", "dwarf,16384", "-e", "cpu-clock"]
    process.run([*record, "-p", str(pid), "-o", str(data), "--", "sleep", str(seconds)], None)
    command = [perf, "script", "-i", str(data), "-F", "ip,sym,dso", "--no-inline"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise BenchFailure(f"perf script ended with {done.returncode}: {done.stderr.decode()[-2000:]}")
    return done.stdout.decode(errors="replace")


def main(
    protocol: Annotated[str, typer.Option(help="h2 or http/1.1.")] = "h2",
    seconds: Annotated[float, typer.Option(help="How long.")] = 5.0,
    functions: Annotated[int, typer.Option(help="Of ours that the most samples were in, so many.")] = 0,
) -> None:
    """Print what a handoff costs, and how that is split."""
    console = Console(width=120)
    plan = Plan(closed_s=seconds)
    with ExitStack() as stack, ThreadPoolExecutor(1) as beside:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="phoenixflight-bench-")))
        bed = Bed(folder, stack)
        proxy = bed.launch(gateway.GATEWAY)
        stack.callback(proxy.child.stop)
        connections = plan.h2_connections if protocol == "h2" else plan.h1_connections
        try:
            with proxy.blamed():
                check(proxy)
                cost = alone(proxy, protocol, connections, plan, bed.load_core)["cpu_us"]
                load = beside.submit(alone, proxy, protocol, connections, plan, bed.load_core)
                script = _sampled(proxy.child.pid, seconds, folder)
                load.result()
        except BenchFailure as failure:
            console.print(str(failure), style="red", markup=False, highlight=False)
            raise typer.Exit(1) from None
    parts, inner = split(script)
    total = parts.total()
    grid = Table(title=f"{cost:.0f} µs CPU a handoff, {protocol} in; {total:,} samples", title_justify="left")
    for heading in ("", "share", "µs"):
        grid.add_column(heading, justify="right" if heading else "left")
    for part in PARTS:
        share = parts[part] / total
        grid.add_row(part, f"{share:.0%}", f"{share * cost:.0f}")
    console.print(grid)
    for function, count in inner.most_common(functions):
        console.print(f"{count / total:6.1%} {function}", markup=False, highlight=False)
    print(json.dumps({part: round(parts[part] / total * cost, 1) for part in PARTS}))


if __name__ == "__main__":
    typer.run(main)
