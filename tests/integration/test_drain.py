"""Gateways behind a balancer are restarted, one after the other: no request fails and no stream is cut."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import httpx
import pytest

from tests.conftest import CAPABILITY, RunningGateway, StartGateway, client_context, member
from tests.fleet.h2 import Answer, Caller
from tests.waiting import eventually, free_port

STREAMS = 200
REQUESTS_PER_S = 200
EVENTS = 8
EVERY_S = 0.5
WHOLE = b"".join(b"data: %d\n\n" % number for number in range(EVENTS))

BALANCER = """\
defaults
  mode tcp
  timeout connect 10s
  timeout check 10s
  timeout client 60s
  timeout server 60s
frontend mesh
  bind 127.0.0.1:{port}
  default_backend gateways
backend gateways
  balance roundrobin
  option httpchk GET /readyz
  default-server check inter 100ms fall 1 rise 1
"""


async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An agent: ``/events`` is a stream of events, everything else is answered at once."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"GET /events"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone")
                continue
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            for number in range(EVENTS):
                event = b"data: %d\n\n" % number
                writer.write(b"%x\r\n%b\r\n" % (len(event), event))
                await asyncio.sleep(EVERY_S)
            writer.write(b"0\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        pass  # the caller left, or the test is over
    finally:
        writer.close()


@asynccontextmanager
async def serving(port: int) -> AsyncIterator[None]:
    server = await asyncio.start_server(agent, "127.0.0.1", port, backlog=1024)
    yield
    server.close()


@pytest.fixture
def agent_port() -> int:
    return free_port()


@pytest.fixture
def pair(start_gateway: StartGateway, agent_port: int) -> list[RunningGateway]:
    """Two gateways for the same agent."""
    limits = {"drainDelay": "1s", "maxConnectionsPerAgent": 1000}
    return [start_gateway([member(agent_port)], limits=limits) for _ in range(2)]


@pytest.fixture
def balancer(pair: list[RunningGateway], tmp_path: Path) -> Iterator[int]:
    """The port of a HAProxy in front of both, which looks at TCP alone."""
    if shutil.which("haproxy") is None:
        pytest.skip("haproxy is not installed")
    port = free_port()
    servers = [
        f"  server g{number} 127.0.0.1:{each.tls_port} port {each.admin_port}\n" for number, each in enumerate(pair)
    ]
    file = tmp_path / "haproxy.cfg"
    file.write_text(BALANCER.format(port=port) + "".join(servers))
    process = subprocess.Popen(["haproxy", "-db", "-f", str(file)], stderr=subprocess.DEVNULL)

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    eventually(listens)
    yield port
    process.terminate()
    process.wait(10)


class Traffic:
    """Requests at a rate over both versions of HTTP, and streams of events; nothing is sent twice."""

    def __init__(self, h2: list[Caller], h1: httpx.AsyncClient) -> None:
        self.over = asyncio.Event()
        self.problems: list[str] = []
        self.requests = 0
        self.streams = 0
        self._h2 = h2
        self._h1 = h1
        self._turn = count()

    async def stream(self, number: int) -> None:
        answer = await self._h2[number % len(self._h2)].get("/events", CAPABILITY)
        self.streams += 1
        self._note(answer, WHOLE)

    def _note(self, answer: Answer, body: bytes) -> None:
        if answer.problem or (answer.status, answer.body) != (200, body):
            self.problems.append(f"{answer.status} {answer.problem} {answer.body[:200]!r}")

    async def _request(self) -> None:
        self.requests += 1
        turn = next(self._turn)
        if turn % 2:
            self._note(await self._h2[turn // 2 % len(self._h2)].get("/run", CAPABILITY), b"done")
            return
        answer = Answer()
        try:
            response = await self._h1.get("/run", headers=CAPABILITY)
            answer.status, answer.body = response.status_code, response.content
        except httpx.HTTPError as error:
            answer.problem = repr(error)
        self._note(answer, b"done")

    async def requests_at_a_rate(self) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            due = loop.time()
            while not self.over.is_set():
                due = max(due + 1 / REQUESTS_PER_S, loop.time() - 0.1)
                await asyncio.sleep(due - loop.time())
                tasks.create_task(self._request())


@asynccontextmanager
async def traffic(port: int, certs: Path) -> AsyncIterator[Traffic]:
    h2 = [Caller(port, client_context(certs, alpn=["h2"])) for _ in range(8)]
    limits = httpx.Limits(max_connections=50, max_keepalive_connections=50)
    url = f"https://127.0.0.1:{port}"
    async with httpx.AsyncClient(
        base_url=url, verify=client_context(certs), timeout=30, trust_env=False, limits=limits
    ) as h1:
        yield Traffic(h2, h1)
    for each in h2:
        each.close()


@pytest.mark.slow
async def test_a_rolling_restart_behind_a_balancer_fails_no_request_and_cuts_no_stream(
    balancer: int, pair: list[RunningGateway], agent_port: int, certs: Path
) -> None:
    async with serving(agent_port), traffic(balancer, certs) as flow, asyncio.TaskGroup() as tasks:
        for gateway in pair:
            streams = [tasks.create_task(flow.stream(number)) for number in range(STREAMS)]
            await asyncio.to_thread(eventually, lambda gateway=gateway: in_flight(gateway) >= STREAMS / 4, 20)
            if gateway is pair[0]:  # its share of the streams is there: connections are dealt out in turns
                tasks.create_task(flow.requests_at_a_rate())
            before = flow.requests
            gateway.process.send_signal(signal.SIGTERM)
            code = await asyncio.to_thread(gateway.process.wait, 40)
            assert code == 0, gateway.log()
            assert flow.requests > before, "others are served meanwhile"
            await asyncio.to_thread(gateway.start_again)
            await asyncio.wait(streams)
        flow.over.set()
    assert flow.problems == []
    assert flow.streams == 2 * STREAMS
    # Each is in the access log, the last ones a moment after their answers.
    eventually(lambda: sum(len(each.handoffs()) for each in pair) == flow.requests + flow.streams)
    for gateway in pair:
        outcomes = {each["outcome"] for each in gateway.handoffs()}
        assert outcomes == {"completed"}


def in_flight(gateway: RunningGateway) -> float:
    text = gateway.admin("/metrics").text
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith("phoenixflight_handoffs_in_fl"))
