"""What operators revoke is stopped now, here and at every replica, and what is under way ends."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import Result
from typer.testing import CliRunner

from gateway.cli import app
from tests.admin.operators import operator, with_token
from tests.conftest import CAPABILITY, RawAgent, RunningGateway, _replace, launch, member
from tests.redis_server import RedisServer
from tests.waiting import eventually

PLANNER = "spiffe://mesh.local/ns/agents/sa/planner"
CODER = "spiffe://mesh.local/ns/agents/sa/coder"
LONGEST_S = 10.0
NOTHING = """
apiVersion: phoenixflight.io/v1
kind: Revocations
metadata: {name: test}
spec: {revoked: []}
"""


def answer(agent: RawAgent, connection: socket.socket) -> None:
    """A stream of events that goes on for ever at /events, a short answer elsewhere."""
    while head := agent.read_head(connection):
        if b" /events " not in head:
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            continue
        connection.sendall(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            b"9\r\ndata: 1\n\n\r\n"
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def replicas(
    certs: Path, server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningGateway, RunningGateway]]:
    agent = RawAgent(answer)
    started: list[RunningGateway] = []
    for name in ("one", "other"):
        folder = tmp_path_factory.mktemp(name)
        (folder / "revoked.yaml").write_text(NOTHING)
        started.append(
            launch(
                folder,
                certs,
                [member(agent.port)],
                admin_spec=with_token(folder),
                limits={"drainDelay": "0s", "drainTimeout": "100ms"},
                redis={"url": server.url},
                revocations={"path": "revoked.yaml", "keep": "kept.json"},
            )
        )
    yield started[0], started[1]
    for gateway in started:
        gateway.stop()
    agent.close()


@pytest.fixture
def one(replicas: tuple[RunningGateway, RunningGateway]) -> Iterator[RunningGateway]:
    """Of the two; what a test has revoked at it is undone."""
    yield replicas[0]
    for each in told(replicas[0]):
        if not each["who"].endswith(".yaml"):
            order(replicas[0], each["kind"], each["value"], "DELETE")


def told(gateway: RunningGateway) -> list[dict[str, str]]:
    with operator(gateway) as client:
        return list(client.get("/revocations").json()["revocations"])


def cli(gateway: RunningGateway, *words: str) -> Result:
    admin = ["--admin", f"http://127.0.0.1:{gateway.admin_port}", "--token-file", str(gateway.folder / "admin-token")]
    return CliRunner().invoke(app, ["revoke", *words, *admin])


def order(gateway: RunningGateway, kind: str, value: str, method: str = "POST", **more: str) -> httpx.Response:
    with operator(gateway) as client:
        headers = {"content-type": "application/json"}
        return client.request(method, "/revocations", params={"kind": kind, "value": value, **more}, headers=headers)


class Listener:
    """A stream of events that is open; `ended_at` is when it ended, and `reason` with which reason."""

    def __init__(self, client: httpx.Client, headers: dict[str, str]) -> None:
        self._begun, self.ended = threading.Event(), threading.Event()
        self._client, self._headers = client, headers
        self.reason = ""
        self.ended_at = 0.0
        threading.Thread(target=self._listen, daemon=True).start()
        assert self._begun.wait(10)

    def _listen(self) -> None:
        with contextlib.suppress(httpx.HTTPError), self._client.stream("GET", "/events", headers=self._headers) as came:
            pieces = came.iter_raw()
            assert next(pieces) == b"data: 1\n\n"
            self._begun.set()
            last = b"".join(pieces).decode()
            self.ended_at = time.monotonic()
            assert last.startswith("event: error\ndata: ")
            self.reason = json.loads(last.partition("data: ")[2])["type"].removeprefix("urn:phoenixflight:")
        self.ended.set()


@pytest.fixture
def listen() -> Iterator[type[Listener] | object]:
    clients: list[httpx.Client] = []

    def begin(gateway: RunningGateway, caller: str = "planner", http2: bool = False, **fields: str) -> Listener:
        clients.append(gateway.client(caller, http2=http2))
        return Listener(clients[-1], {**CAPABILITY, **{f"flight-{name}": text for name, text in fields.items()}})

    yield begin
    for client in clients:
        client.close()


def status(gateway: RunningGateway, caller: str = "planner", path: str = "/run", **fields: str) -> tuple[int, str]:
    with gateway.client(caller) as client:
        came = client.post(path, headers={**CAPABILITY, **{f"flight-{name}": text for name, text in fields.items()}})
    reason = came.json()["type"].removeprefix("urn:phoenixflight:") if came.status_code != 200 else ""
    return came.status_code, reason


def test_a_revoked_principal_is_refused_its_streams_end_and_others_go_on_until_it_is_undone(one, listen) -> None:
    streams = [listen(one, http2=http2) for http2 in (False, True)]
    other = listen(one, "coder")
    began = time.monotonic()
    assert order(one, "principal", PLANNER, why="an incident").status_code == 200
    for stream in streams:
        assert stream.ended.wait(LONGEST_S)
        assert stream.reason == "revoked"
        assert stream.ended_at - began < 1.0
    assert status(one) == (403, "revoked")
    assert status(one, "coder") == (200, "")
    assert not other.ended.is_set()
    assert one.handoff(outcome="revoked", **{"from": PLANNER})["reason"] == "revoked"
    with operator(one) as client:
        assert 'phoenixflight_revocations{kind="principal"} 1.0' in client.get("/metrics").text
    with one.client() as client:
        asked = client.put("/members/mine", json={})
    assert (asked.status_code, asked.json()["type"]) == (403, "urn:phoenixflight:revoked")
    assert order(one, "principal", PLANNER, "DELETE").status_code == 200
    assert status(one) == (200, "")


def test_a_conversation_and_a_task_stop_alone(one, listen) -> None:
    conversation = listen(one, conversation='"c-1"')
    task, beside = listen(one, conversation='"c-2"', task='"t-2"'), listen(one, conversation='"c-2"', task='"t-3"')
    packet = listen(one, id='"p-9"')
    order(one, "conversation", "c-1")
    order(one, "task", "t-2")
    order(one, "task", "p-9")
    for stream in (conversation, task, packet):
        assert stream.ended.wait(LONGEST_S)
        assert stream.reason == "revoked"
    assert status(one, conversation='"c-1"') == status(one, task='"t-2"') == (403, "revoked")
    assert status(one, conversation='"c-2"') == (200, "")
    assert not beside.ended.is_set()


def test_a_certificate_is_revoked_by_its_fingerprint(one, certs: Path) -> None:
    asked = ["openssl", "x509", "-in", str(certs / "coder.pem"), "-noout", "-fingerprint", "-sha256"]
    printed = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    order(one, "key", printed.strip().partition("=")[2])
    assert status(one, "coder") == (403, "revoked")
    assert status(one) == (200, "")


def test_the_command_revokes_lists_and_undoes(one) -> None:
    done = cli(one, "task", "t-7", "--for", "1h", "--why", "a loop")
    assert (done.exit_code, done.stdout) == (0, "revoked: task t-7\n"), done.stderr
    listed = cli(one, "--list").stdout
    assert listed.startswith("task t-7: until 2")
    assert listed.endswith(": a loop\n")
    assert status(one, task='"t-7"') == (403, "revoked")
    assert cli(one, "--undo", "task", "t-7").exit_code == 0
    assert cli(one, "--undo", "task", "t-7").exit_code == 1
    assert cli(one, "task").exit_code == 2
    assert status(one, task='"t-7"') == (200, "")


def test_only_an_operator_revokes_and_what_cannot_be_meant_is_refused(one) -> None:
    url = f"http://127.0.0.1:{one.admin_port}/revocations?kind=task&value=x"
    assert httpx.post(url, headers={"content-type": "application/json"}).status_code in (401, 403)
    assert order(one, "everything", "x").status_code == order(one, "principal", "planner").status_code == 400
    assert order(one, "task", "x", **{"for": "soon"}).status_code == 400
    assert told(one) == []


def test_a_document_revokes_and_a_broken_one_leaves_what_was_in_force(one, listen) -> None:
    stream, began = listen(one, "coder"), time.monotonic()
    file = one.folder / "revoked.yaml"
    _replace(file, NOTHING.replace("[]", f"[{{kind: principal, value: {CODER}}}]"))
    assert stream.ended.wait(LONGEST_S)
    assert stream.ended_at - began < LONGEST_S
    assert status(one, "coder") == (403, "revoked")
    assert order(one, "principal", CODER, "DELETE").status_code == 409
    _replace(file, NOTHING.replace("[]", "[{kind: nobody}]"))
    with operator(one) as client:
        eventually(lambda: "revoked.yaml" in json.dumps(client.get("/status").json()["last_refused"]))
    assert status(one, "coder") == (403, "revoked")
    _replace(file, NOTHING)
    eventually(lambda: status(one, "coder") == (200, ""))


def test_what_one_replica_revokes_ends_at_the_other_and_stays_so_without_redis(
    replicas: tuple[RunningGateway, RunningGateway], server: RedisServer, listen
) -> None:
    one, other = replicas
    streams = [listen(other), listen(one)]
    beside = listen(other, "coder")
    began = time.monotonic()
    assert order(one, "principal", PLANNER).json()["trouble"] == ""
    for stream in streams:
        assert stream.ended.wait(LONGEST_S)
        assert stream.reason == "revoked"
        assert stream.ended_at - began < LONGEST_S
    assert not beside.ended.is_set()

    server.stop()
    with operator(other) as client:
        eventually(lambda: client.get("/revocations").json()["trouble"])
    assert status(one) == status(other) == (403, "revoked")
    local = order(other, "task", "t-8").json()
    assert local["trouble"]
    assert status(other, "coder", task='"t-8"') == (403, "revoked")

    server.start()  # without its memory
    eventually(lambda: status(one, "coder", task='"t-8"') == (403, "revoked"))
    assert status(one) == status(other) == (403, "revoked")
