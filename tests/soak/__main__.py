"""``python -m tests.soak``: see the package.

Leaves ``.soak/samples.json`` and ``.soak/soak.png``; exit 1 is a failed verdict.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import httpx
import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from gateway.control.certs_dev import issue_dev_certificates
from tests.conftest import SVIDS, TRUST_DOMAIN, RunningGateway, launch
from tests.fleet import Worker, numbers, start, stop
from tests.redis_server import RedisServer
from tests.soak import verdict
from tests.soak.trouble import Trouble

MINUTES = float(os.environ.get("SOAK_MINUTES", "10"))
OUT = Path(".soak")
AGENTS = 4
CALLERS = 2
LOAD_SHARE = 0.7
CALIBRATION_S = 6.0
CANCELS = 0.02
SAMPLE_S = 1.0
IDLE_S = 5
"""Connections to agents that nobody uses are closed after this."""
_METRICS = {
    "rss_bytes": "process_resident_memory_bytes",
    "descriptors": "process_open_fds",
    "tasks": "phoenixflight_tasks",
    "in_flight": "phoenixflight_handoffs_in_flight",
    "cpu_s": "process_cpu_seconds_total",
}


def sample(gateway: RunningGateway) -> dict[str, float]:
    """The gateway as it tells of itself."""
    text = gateway.admin("/metrics").text
    return {"at": time.time(), **{name: numbers(text, metric)[""] for name, metric in _METRICS.items()}}


def caller(gateway: RunningGateway, folder: Path, name: str, **settings: object) -> subprocess.Popen[bytes]:
    """Start callers in a process of their own."""
    told = {
        "name": name,
        "port": gateway.tls_port,
        "certs": str(folder / "callers"),
        "out": str(folder / f"{name}.txt"),
    }
    command = [sys.executable, "-m", "tests.soak.caller", json.dumps({**told, **settings})]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def told(process: subprocess.Popen[bytes]) -> dict[str, float]:
    """What callers say in the end."""
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"callers ended with {process.returncode}")
    return dict(json.loads(output))


def sustained(gateway: RunningGateway, folder: Path) -> float:
    """Packets a second with the machine as busy as it gets."""
    running = [caller(gateway, folder, f"calibration-{n}", seconds=CALIBRATION_S) for n in range(CALLERS)]
    return sum(told(each)["per_second"] for each in running)


def soak(folder: Path, stack: ExitStack) -> int:
    """All of it; gives the exit status."""
    issue_dev_certificates(folder / "certs", trust_domain=TRUST_DOMAIN, svids=SVIDS, now=datetime.now(UTC))
    shutil.copytree(folder / "certs", folder / "callers")  # stays as it is while the gateway's is replaced
    workers = [Worker(folder, f"executor-{n}", module="tests.soak.agent") for n in range(AGENTS)]
    stack.callback(stop, workers)
    start(workers)
    spec: dict[str, object] = {
        "limits": {"upstreamIdleTimeout": f"{IDLE_S}s"},
        # Each handoff has its line, however many a second.
        "telemetry": {"accessLog": "access.log", "maxLines": 1_000_000, "maxRefusedLines": 1_000_000},
    }
    if shutil.which("redis-server"):
        redis = RedisServer(folder)
        stack.callback(redis.stop)
        spec["redis"] = {"url": redis.url}
    (folder / "gateway").mkdir()
    gateway = launch(folder / "gateway", folder / "certs", [each.member for each in workers], **spec)
    stack.callback(gateway.stop)
    before = sample(gateway)
    most = sustained(gateway, folder)
    rate = LOAD_SHARE * most
    print(
        f"the machine sustains {most:,.0f} packets a second; the soak is {rate:,.0f}/s for {MINUTES:g} min", flush=True
    )
    trouble = Trouble(gateway, workers, seed=1)
    names = [f"soak-{n}" for n in range(CALLERS)]
    options = {"seconds": MINUTES * 60, "rate": rate / CALLERS, "cancels": CANCELS}
    running = [caller(gateway, folder, name, **options) for name in names]
    trouble.start()
    samples: list[dict[str, float]] = []
    missed = 0
    while any(each.poll() is None for each in running):
        try:
            samples.append(sample(gateway))
        except httpx.TimeoutException:
            missed += 1
        time.sleep(SAMPLE_S)
    trouble.stop()
    ends = [told(each) for each in running]
    unanswered = sum(each["unanswered"] for each in ends)
    print(f"sent and answered {sum(each['per_second'] for each in ends):,.0f}/s;", end=" ")
    print(f"{sum(each['held_back'] for each in ends):,.0f} found no connection with room")
    shed = sum(numbers(gateway.admin("/metrics").text, "phoenixflight_shed_total").values())
    defects = numbers(gateway.admin("/metrics").text, "phoenixflight_defects_total")[""]
    time.sleep(IDLE_S + 3)
    after = sample(gateway)
    status = gateway.stop()  # the access log is flushed
    ended = verdict.read(folder / f"{name}.txt" for name in (*names, *(f"calibration-{n}" for n in range(CALLERS))))
    failures = judge(samples, ended, trouble, gateway, shed)
    failures += [f"{missed} times it did not tell how it is within 5 s"] if missed else []
    failures += [f"{unanswered:g} packets were never answered"] if unanswered else []
    left = {name: after[name] - before[name] for name in verdict.MAX_LEFT}
    print("left when everybody had gone, beyond what there was before:", left)
    failures += [f"{left[name]:g} {name} are left" for name, bound in verdict.MAX_LEFT.items() if left[name] > bound]
    failures += [f"{defects:g} defects; see the log:\n{gateway.log()[-3000:]}"] if defects else []
    failures += [f"the gateway ended with {status}"] if status else []
    (OUT / "samples.json").write_text(json.dumps({"rate": rate, "sustained": most, "samples": samples}))
    draw(samples, OUT / "soak.png")
    print("\n".join(failures) or "flat, explained and recorded")
    return 1 if failures else 0


def judge(
    samples: list[dict[str, float]],
    ended: list[verdict.Ended],
    trouble: Trouble,
    gateway: RunningGateway,
    shed: float,
) -> list[str]:
    """What is wrong; figures are printed as they are found.  `shed`: how many packets were turned away at the door."""
    failures = []
    times = [each["at"] for each in samples]
    for name, bound in verdict.MAX_GROWTH.items():
        grown = verdict.growth(times, [each[name] for each in samples])
        values = [each[name] for each in samples]
        print(f"{name}: {values[0]:,.0f} to {values[-1]:,.0f}, fitted growth {grown:,.1f} (bound {bound:,.0f})")
        if grown > bound:
            failures.append(f"{name} is not flat: it grew by {grown:,.1f}")
    print("packets:", dict(Counter(each.status for each in ended)), "trouble:", dict(trouble.done))
    lines = verdict.recorded(gateway.folder / "access.log")
    away = verdict.turned_away(ended, lines)
    print(f"turned away at the door: {len(away)}, by the gateway's own count {shed:g}")
    if len(away) > shed:
        failures.append("more 503 than the gateway turned away are in no line of the log")
    ended = sorted(set(ended) - set(away))
    strange = verdict.unexplained(ended, trouble.kills)
    failures += [f"unexplained: {each}" for each in strange[:20]]
    wrong = verdict.misrecorded(ended, lines)
    failures += [f"not recorded exactly once: {each}" for each in wrong[:20]]
    print(f"unexplained failures: {len(strange)}; not recorded exactly once: {len(wrong)} of {len(ended):,}")
    return failures


def draw(samples: list[dict[str, float]], path: Path) -> None:
    """The picture of the run."""
    figure, axes = plt.subplots(len(_METRICS) - 1, 1, figsize=(10, 9), sharex=True, layout="constrained")
    for axis, name in zip(axes, _METRICS, strict=False):
        scale = 2**20 if name == "rss_bytes" else 1
        axis.plot([each["at"] - samples[0]["at"] for each in samples], [each[name] / scale for each in samples])
        axis.set_title("RSS [MiB]" if scale > 1 else name, fontsize=9, loc="left")
        axis.set_ylim(bottom=0)
    axes[-1].set_xlabel("seconds")
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as cleanup:
        code = soak(Path(temporary), cleanup)
    raise SystemExit(code)
