"""Several workers as one gateway: one of them dies, all of them end, and what they say is said once."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import POLICY, RawAgent, RunningGateway, StartGateway, member, write_policy
from tests.fleet import numbers
from tests.redis_server import RedisServer
from tests.waiting import eventually

REQUEST = b"GET /run HTTP/1.1\r\nhost: mesh\r\nflight-capability: code.execute\r\n\r\n"
CONNECTIONS = 16


def ok(agent: RawAgent, connection: socket.socket) -> None:
    while True:
        agent.read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


@pytest.fixture
def gateway(raw_agent, start_gateway: StartGateway, redis: RedisServer) -> RunningGateway:
    return start_gateway([member(raw_agent(ok).port)], workers=2, redis={"url": redis.url})


def connect(gateway: RunningGateway) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", gateway.plain_port), 30)
    connection.settimeout(30)
    return connection


def read(connection: socket.socket) -> None:
    data = b""
    while not data.endswith(b"\r\n\r\nok"):
        piece = connection.recv(65536)
        assert piece, data
        data += piece
    assert data.startswith(b"HTTP/1.1 200 ")


def ask(connection: socket.socket) -> None:
    connection.sendall(REQUEST)
    read(connection)


def pids(gateway: RunningGateway) -> list[int]:
    return [each["pid"] for each in gateway.admin("/status").json()["workers"]]


def owner(connection: socket.socket, candidates: list[int]) -> int:
    """The process that has the other end."""
    here, there = connection.getsockname()[1], connection.getpeername()[1]
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    wanted = f":{there:04X}", f":{here:04X}"
    (inode,) = [row[9] for row in rows if row[1].endswith(wanted[0]) and row[2].endswith(wanted[1])]
    for pid in candidates:
        for name in Path(f"/proc/{pid}/fd").iterdir():
            if name.is_symlink() and str(name.readlink()) == f"socket:[{inode}]":
                return pid
    raise AssertionError("nobody has it")


@pytest.fixture
def connected(gateway: RunningGateway) -> Iterator[Callable[[], list[socket.socket]]]:
    with ExitStack() as stack:
        yield lambda: [stack.enter_context(connect(gateway)) for _ in range(CONNECTIONS)]


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_and_nobody_else_notices(
    gateway: RunningGateway, connected: Callable[[], list[socket.socket]]
) -> None:
    before = pids(gateway)
    assert len(set(before)) == 2
    old = connected()
    for connection in old:
        ask(connection)
    counted = numbers(gateway.admin("/metrics").text, "phoenixflight_handoffs_total")
    assert sum(counted.values()) == CONNECTIONS, "the sum of both"
    victim = owner(old[0], before)
    others = [each for each in old if owner(each, before) != victim]
    assert 0 < len(others) < CONNECTIONS
    os.kill(victim, signal.SIGKILL)
    new = connected()
    for connection in new:
        connection.sendall(REQUEST)
    for _ in range(20):
        for connection in others:
            ask(connection)
        time.sleep(0.02)
    assert gateway.admin("/readyz").status_code == 200, "one that is being replaced is no reason to send everybody away"
    for connection in new:
        read(connection)  # those in the queue of the one that died waited for the next
    after = pids(gateway)
    assert len(set(after) & set(before)) == 1
    exposition = gateway.admin("/metrics").text
    assert numbers(exposition, "phoenixflight_worker_restarts_total") == {"": 1}
    total = sum(numbers(exposition, "phoenixflight_handoffs_total").values())
    assert total == 2 * CONNECTIONS + 20 * len(others), "what the one that died had counted stays counted"


@pytest.mark.slow
def test_all_workers_reload_drain_and_end_together(
    gateway: RunningGateway, connected: Callable[[], list[socket.socket]]
) -> None:
    before = gateway.revision()
    write_policy(gateway.folder, "more", {**POLICY, "metadata": {"name": "more"}})
    eventually(lambda: gateway.revision() not in (before, "None"))
    connections = connected()
    for connection in connections:
        ask(connection)
    flight = gateway.handoff(agent="executor-1")["flight_id"]
    assert gateway.admin(f"/explain?id={flight}").json()["recorded"]["agent"] == "executor-1"
    assert gateway.admin("/snapshot").json()["agents"]
    running = pids(gateway)
    gateway.process.send_signal(signal.SIGTERM)
    eventually(lambda: gateway.log().count("draining for at most") == 2)
    for connection in connections:
        connection.sendall(REQUEST)
    assert b"connection: close" in connections[0].recv(65536)
    assert gateway.process.wait(30) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in running)
    assert len(gateway.handoffs()) == 2 * CONNECTIONS


@pytest.mark.slow
def test_workers_end_when_their_supervisor_is_gone(gateway: RunningGateway) -> None:
    running = pids(gateway)
    gateway.process.kill()
    gateway.process.wait(10)
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in running), 20)


@pytest.mark.slow
def test_workers_run_the_code_of_their_supervisor_wherever_it_was_started(
    gateway: RunningGateway, tmp_path: Path
) -> None:
    assert gateway.stop() == 0
    other = tmp_path / "gateway"
    other.mkdir()
    (other / "__init__.py").write_text("raise SystemExit('the code that lies about here')")
    command = [Path(sys.executable).with_name("phoenixflight"), "run", "--config", gateway.folder / "gateway.yaml"]
    with (gateway.folder / "stderr.log").open("wb") as log:
        gateway.process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    eventually(gateway.ready, 40)
    assert "lies about here" not in gateway.log()
