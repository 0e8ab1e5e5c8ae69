"""What docs/capacity.md reckons with, measured: `python -m bench.capacity` prints it, in about a minute.

CPU is read from /proc and from Redis's own INFO, so that it counts the work and not the waiting; what else the machine
does makes it a little more, by colder caches.  It takes redis-server.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import yaml
from redis.asyncio import Redis
from rich.console import Console

from bench import process
from gateway.admission.redis_replay import RedisReplay
from gateway.control.certs_dev import issue_dev_certificates
from gateway.decision import NO_EVIDENCE, Snapshot, judge
from gateway.identity import Principal, SpiffeId
from gateway.leases import LeaseSpec
from gateway.leases.lease import Use
from gateway.leases.redis_leases import RedisLeases
from gateway.messages import RequestHead
from gateway.packet import parse, sift
from gateway.policy import PolicySet
from gateway.policy.load import load_policies
from gateway.routing.simulate import agents

_MEMBERS = 5_000
"""As many as agents.yaml holds within its 1 MiB, and some room."""
_QUESTIONS = 20_000
_CONVERSATIONS = 10_000
_RENEWALS = 2_000
_SPIFFE = "spiffe://mesh.local/ns/agents/sa/agent"


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024**2


@contextmanager
def _gateway(folder: Path, agents: int) -> Iterator[tuple[int, str]]:
    """A gateway over so many agents: its pid, and its URL."""
    folder.mkdir()
    mesh, admin = process.free_port(), process.free_port()
    names = {"certificate": "../certs/gateway.pem", "key": "../certs/gateway-key.pem", "trustBundle": "../certs/ca.pem"}
    members = [
        {"name": f"a{number}", "address": f"127.0.0.1:{10_000 + number}", "capabilities": ["code.execute"]}
        for number in range(agents)
    ]
    rule = {"name": "agents", "effect": "allow", "from": [_SPIFFE]}
    may_register = {
        "name": "agents",
        "from": [_SPIFFE],
        "names": ["r*"],
        "capabilities": ["plan"],
        "addresses": ["127.0.0.0/8"],
        "maxTrust": 1,
    }
    documents = {
        "gateway.yaml": [
            "Gateway",
            {
                "identity": names,
                "listeners": [{"name": "mesh", "address": f"127.0.0.1:{mesh}"}],
                "admin": {"address": f"127.0.0.1:{admin}"},
                "policies": "policies",
                "members": "agents.yaml",
                "telemetry": {"accessLog": "none"},
            },
        ],
        "agents.yaml": ["AgentList", {"agents": members}],
        "policies/trust.yaml": ["TrustPolicy", {"capabilities": ["*"], "rules": [rule]}],
        "policies/members.yaml": ["MembershipPolicy", {"rules": [may_register]}],
    }
    (folder / "policies").mkdir()
    for name, (kind, spec) in documents.items():
        document = {"apiVersion": "phoenixflight.io/v1", "kind": kind, "metadata": {"name": "capacity"}, "spec": spec}
        text = yaml.dump(document, default_flow_style=True, width=10**6, sort_keys=False)
        (folder / name).write_text(text)
    command = process.module("gateway.cli", "run", "--config", folder / "gateway.yaml")
    child = process.start("the gateway", command, folder / "log", None)
    try:
        child.wait_ready(f"http://127.0.0.1:{admin}/readyz")
        yield child.pid, f"https://127.0.0.1:{mesh}"
    finally:
        child.stop()


def _members(folder: Path) -> dict[str, str]:
    used = {}
    for count in (1, _MEMBERS):
        with _gateway(folder / f"members-{count}", count) as (pid, _):
            used[count] = _rss_mib(pid)
    each = (used[_MEMBERS] - used[1]) * 1024 / (_MEMBERS - 1)
    return {
        "RSS with one agent, before any load": f"{used[1]:.0f} MiB",
        "RSS for each agent of a file": f"{each:.1f} KiB",
    }


def _renewals(folder: Path) -> dict[str, str]:
    context = ssl.create_default_context(cafile=folder / "certs" / "ca.pem")
    context.load_cert_chain(folder / "certs" / "agent.pem", folder / "certs" / "agent-key.pem")
    body = {"address": "127.0.0.1:8080", "capabilities": ["plan"], "lease": "60s"}
    with _gateway(folder / "renewals", 1) as (pid, url), httpx.Client(base_url=url, verify=context) as client:
        client.put("/members/r1", json=body).raise_for_status()
        before = _cpu_s(pid)
        for _ in range(_RENEWALS):
            client.put("/members/r1", json=body).raise_for_status()
        spent = _cpu_s(pid) - before
    return {"a registration renewed, CPU of the gateway, without Redis": f"{spent / _RENEWALS * 1e6:.0f} µs"}


async def _redis(url: str) -> dict[str, str]:
    info = Redis.from_url(url)

    async def spent(ask: Callable[[int], Awaitable[object]]) -> str:
        async def cpu_s() -> float:
            told = await info.info("cpu")
            return float(told["used_cpu_user"]) + float(told["used_cpu_sys"])

        before = await cpu_s()
        for start in range(0, _QUESTIONS, 100):
            await asyncio.gather(*(ask(start + number) for number in range(100)))
        return f"{(await cpu_s() - before) / _QUESTIONS * 1e6:.1f} µs"

    async with RedisLeases(url, LeaseSpec(), timeout_s=30) as leases, RedisReplay(url, timeout_s=30) as replay:

        def take(number: int) -> Awaitable[object]:
            return leases.take(
                b"c-%d" % (number % _CONVERSATIONS), wanted="executor-1", usable=lambda _: Use.KEEP, now=0.0
            )

        async def bytes_used() -> int:
            return int((await info.info("memory"))["used_memory"])

        told = {}
        before = await bytes_used()
        told["a lease renewed, CPU of Redis"] = await spent(take)
        after = await bytes_used()
        told["a lease, memory of Redis"] = f"{(after - before) / _CONVERSATIONS:.0f} bytes"
        told["a signature remembered, CPU of Redis"] = await spent(
            lambda number: replay.admit(b"n-%d" % number, 0.0, 330.0)
        )
        told["a signature, memory of Redis"] = f"{(await bytes_used() - after) / _QUESTIONS:.0f} bytes"
    await info.aclose()
    return told


def _with_redis(folder: Path) -> dict[str, str]:
    port = process.free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    try:
        time.sleep(1)
        return asyncio.run(_redis(f"redis://127.0.0.1:{port}/0"))
    finally:
        server.terminate()
        server.wait(10)


def _join_ms(members: int) -> float:
    """The next snapshot when one agent joins so many, with a ring of all in use: the best of several."""
    rule = f"{{name: all, effect: allow, from: ['{_SPIFFE}']}}"
    text = "apiVersion: phoenixflight.io/v1\nkind: TrustPolicy\nmetadata: {name: all}\n"
    policies = PolicySet(load_policies({"p": f"{text}spec: {{capabilities: ['*'], rules: [{rule}]}}\n"}))
    more = tuple(replace(agent, capabilities=frozenset({"code.execute"})) for agent in agents(members + 1))
    before = Snapshot("capacity", policies, more[:-1], points=160)
    head = RequestHead(b"POST", b"https", b"gateway", b"/", [(b"flight-capability", b"code.execute")])
    packet = parse(head, sift(head.fields).flight, lambda: "capacity")
    judge(packet, head, Principal(SpiffeId(_SPIFFE)), NO_EVIDENCE, before, 0.0)
    times = []
    for _ in range(10):
        began = time.perf_counter()
        before.with_agents(more)
        times.append(time.perf_counter() - began)
    return min(times) * 1e3


def main() -> None:
    """Measure, and print a line for each."""
    console = Console()
    told: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        issue_dev_certificates(
            folder / "certs",
            trust_domain="mesh.local",
            svids={"agent": "/ns/agents/sa/agent"},
            now=datetime.now(UTC),
        )
        told |= _members(folder)
        told |= _renewals(folder)
        if shutil.which("redis-server"):
            told |= _with_redis(folder)
    for members in (5_000, 10_000):
        told[f"one agent joins {members:,}, a new snapshot"] = f"{_join_ms(members):.1f} ms"
    for what, value in told.items():
        console.print(f"{what}: {value}")


if __name__ == "__main__":
    main()
