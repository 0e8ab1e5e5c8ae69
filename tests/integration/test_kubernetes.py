"""A gateway whose members come from a Kubernetes API, while pods come, drain and go."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import RunningGateway, StartGateway
from tests.kube_api import KubeApi, Object
from tests.kube_api.real import RealApi, missing
from tests.membership.kubernetes.cluster import ENDING, READY, UNREADY, pod, service, slice_of
from tests.membership.kubernetes.test_flaps import disturb
from tests.network import own_network
from tests.waiting import eventually, free_port

PODS = 12
FLAPS = 2_000
QUIET = range(9, PODS)
"""Pods that go once, and stay away for `AWAY` flaps."""
AWAY = 400
CALLERS = 6
GRACE_S = 1.0
"""After this, nothing may be sent to a pod that is gone."""
CAPABILITY = {"flight-capability": "code.write"}
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


REAL = pytest.param(RealApi, marks=[pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())])


@pytest.fixture(params=[KubeApi, REAL])
def api(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KubeApi | RealApi]:
    """An API server without objects, of each kind."""
    # A real one takes no pods at loopback addresses.
    network = own_network(*map(address, range(PODS))) if request.param is RealApi else nullcontext()
    with network:
        server = request.param(tmp_path)
        yield server
        server.stop()


def address(number: int, api: KubeApi | RealApi | None = None) -> str:
    """Where a pod is: for documentation only (RFC 5737), but for the tests' own API server in loopback's range."""
    return f"127.0.10.{number + 1}" if isinstance(api, KubeApi) else f"192.0.2.{number + 1}"


@dataclass
class Pods:
    """Pods that answer, each at an address of its own, even when Kubernetes says that they are gone."""

    port: int
    asked: dict[str, list[float]] = field(default_factory=dict)
    """When each was asked, by the epoch."""
    servers: list[asyncio.Server] = field(default_factory=list)

    async def start(self, count: int, api: KubeApi | RealApi) -> None:
        for number in range(count):
            name, host = f"coder-{number}", address(number, api)
            self.asked[name] = []

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str = name) -> None:
                try:
                    while await reader.readuntil(b"\r\n\r\n"):
                        self.asked[name].append(time.time())
                        writer.write(OK)
                except (asyncio.IncompleteReadError, OSError):
                    writer.close()

            self.servers.append(await asyncio.start_server(serve, host, self.port))

    async def stop(self) -> None:
        for server in self.servers:
            server.close()


def cluster(api: KubeApi | RealApi, port: int, conditions: list[dict[str, bool]]) -> Object:
    """The slice of the Service `coder`, each of its pods in one of `conditions`."""
    ports = [{"name": "http", "port": port, "protocol": "TCP"}]
    found = [pod(f"coder-{number}", address(number, api), state) for number, state in enumerate(conditions)]
    return slice_of("coder", *found, ports=ports)


def start(start_gateway: StartGateway, api: KubeApi | RealApi, **spec: Any) -> RunningGateway:
    return start_gateway([], kubernetes={"kubeconfig": str(api.kubeconfig)}, **spec)


def states(gateway: RunningGateway) -> dict[str, str]:
    return {agent["name"]: agent["state"] for agent in gateway.admin("/snapshot").json()["agents"]}


def test_pods_of_labelled_services_are_members_and_a_broken_service_is_told(
    api: KubeApi | RealApi, start_gateway: StartGateway
) -> None:
    port = free_port()
    api.put("services", service("coder"), service("broken", annotations={"phoenixflight.io/trust": "1.5"}))
    api.put("endpointslices", cluster(api, port, [READY, ENDING, UNREADY]))
    gateway = start(start_gateway, api)
    wanted = {"coder-0.agents": "ready", "coder-1.agents": "draining"}
    eventually(lambda: states(gateway) == wanted)
    membership = gateway.admin("/status").json()["membership"]
    [(name, why)] = membership["problems"].items()
    assert name == "agents/broken"
    assert "1.5" in why
    assert "broken" in gateway.log()
    metrics = gateway.admin("/metrics").text
    assert 'phoenixflight_capability_members{capability="code.write",state="ready"} 1.0' in metrics
    assert "phoenixflight_member_problems 1.0" in metrics
    assert 'phoenixflight_watch_age_seconds{state="watching",watch="endpointslices *"}' in metrics


def test_a_gateway_is_not_ready_before_it_knows_its_members_and_keeps_them_when_the_api_is_away(
    api: KubeApi | RealApi, start_gateway: StartGateway
) -> None:
    api.put("services", service("coder"))
    api.put("endpointslices", cluster(api, free_port(), [READY]))
    gateway = start(start_gateway, api)
    eventually(lambda: states(gateway) == {"coder-0.agents": "ready"})
    api.down()
    eventually(lambda: "backing" in str(gateway.admin("/status").json()["membership"]["sources"]["kubernetes"]))
    assert states(gateway) == {"coder-0.agents": "ready"}
    assert gateway.admin("/readyz").status_code == 200


@pytest.mark.slow
async def test_2000_flaps_under_traffic_send_nothing_to_pods_that_are_gone_and_fail_nothing(
    api: KubeApi | RealApi, start_gateway: StartGateway
) -> None:
    pods = Pods(free_port())
    await pods.start(PODS, api)
    conditions = [dict(READY) for _ in range(PODS)]
    api.put("services", service("coder"))
    api.put("endpointslices", cluster(api, pods.port, conditions))
    gateway = await asyncio.to_thread(start, start_gateway, api)
    await asyncio.to_thread(eventually, lambda: len(states(gateway)) == PODS)
    away: list[list[tuple[float, float]]] = [[] for _ in range(PODS)]
    """For each pod, from when until when it was no member."""
    since: dict[int, float] = {}
    failed: list[str] = []
    sent = 0
    over = asyncio.Event()

    async def call(client: httpx.AsyncClient) -> None:
        nonlocal sent
        while not over.is_set():
            answer = await client.post("/write", headers=CAPABILITY, content=b"x")
            sent += 1
            if answer.status_code != 200:
                failed.append(answer.text)
            await asyncio.sleep(0.02)

    chance = random.Random(4)
    going = {100 + AWAY * turn + at: pod for at, pod in enumerate(QUIET) for turn in (at, at + 1)}
    """Which quiet pod goes or comes, by flap."""
    async with (
        httpx.AsyncClient(base_url=gateway.plain_url, trust_env=False, timeout=10) as client,
        asyncio.TaskGroup() as tasks,
    ):
        for _ in range(CALLERS):
            tasks.create_task(call(client))
        for flap in range(FLAPS):
            # The first one stays: there is always a candidate.
            number = going.get(flap) or chance.randrange(1, QUIET.start)
            conditions[number] = dict(UNREADY if conditions[number]["ready"] else READY)
            if flap % 50 == 25 and isinstance(api, KubeApi):
                await disturb(api, chance)
            await asyncio.to_thread(api.put, "endpointslices", cluster(api, pods.port, conditions))
            await asyncio.to_thread(api.up)
            if conditions[number]["ready"]:
                away[number].append((since.pop(number), time.time()))
            else:
                since[number] = time.time()
        over.set()
    now = time.time()
    for number, begun in since.items():
        away[number].append((begun, now))
    await pods.stop()
    assert failed == []
    assert sent > 500
    assert all(until - begun > 2 * GRACE_S for number in QUIET for begun, until in away[number])
    late = [
        (number, asked - begun)
        for number in range(PODS)
        for begun, until in away[number]
        for asked in pods.asked[f"coder-{number}"]
        if begun + GRACE_S < asked < until
    ]
    assert late == []
    assert gateway.admin("/status").json()["membership"]["problems"] == {}
