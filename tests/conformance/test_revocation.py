"""What is under way goes on only while it is allowed: policies, members and certificates change meanwhile."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import websockets
from websockets.sync.client import connect as connect_websocket
from websockets.sync.server import serve

from gateway.control.certs_dev import Authority, write_pair
from tests.conformance.trust import AGENTS, enforce, policy, rule
from tests.conftest import (
    CAPABILITY,
    RawAgent,
    RunningGateway,
    StartGateway,
    client_context,
    member,
    write_agents,
    write_policy,
)
from tests.waiting import eventually

LONGEST_S = 10
BOTH = policy(rule("planners", callers="planner"), rule("coders", callers="coder"))
CODERS = policy(rule("coders", callers="coder"))


class EventSource:
    """An SSE agent: one event at once, and a second one, with the end, when it is told to."""

    def __init__(self, raw_agent: Callable[[Callable[[RawAgent, socket.socket], None]], RawAgent]) -> None:
        self.go_on = threading.Event()
        self.left = 0
        """Callers that broke off."""
        self.port = raw_agent(self._serve).port

    def _serve(self, agent: RawAgent, connection: socket.socket) -> None:
        agent.read_head(connection)
        connection.sendall(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            b"9\r\ndata: 1\n\n\r\n"
        )
        connection.settimeout(0.05)
        while not self.go_on.is_set():
            with contextlib.suppress(TimeoutError):
                connection.recv(1)
                self.left += 1
                return
        connection.sendall(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")


@pytest.fixture
def source(raw_agent) -> EventSource:
    return EventSource(raw_agent)


@contextlib.contextmanager
def listening(client: httpx.Client) -> Iterator[Iterator[bytes]]:
    """The pieces of an SSE stream that is open and has given its first event."""
    with client, client.stream("GET", "/events", headers=CAPABILITY) as response:
        pieces = response.iter_raw()
        assert next(pieces) == b"data: 1\n\n"
        yield pieces


def last_words(pieces: Iterator[bytes]) -> str:
    """The reason with which a stream of events ends."""
    event, data, *rest = b"".join(pieces).decode().split("\n")
    assert (event, rest) == ("event: error", ["", ""])
    return str(json.loads(data.removeprefix("data: "))["type"]).removeprefix("urn:phoenixflight:")


def revoked(gateway: RunningGateway, caller: str) -> dict[str, object]:
    return gateway.handoff(outcome="revoked", **{"from": f"{AGENTS}/{caller}"})


def test_a_stream_ends_when_its_rule_goes_and_others_go_on(source: EventSource, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(source.port)], policy=BOTH)
    with contextlib.ExitStack() as streams:
        coders, planners = (
            [streams.enter_context(listening(gateway.client(name, http2=http2))) for http2 in (False, True)]
            for name in ("coder", "planner")
        )
        write_policy(gateway.folder, "test", CODERS)
        for pieces in planners:
            assert last_words(pieces) == "no-policy-allows"
        eventually(lambda: source.left == 2)
        source.go_on.set()
        for pieces in coders:
            assert b"".join(pieces) == b"data: 2\n\n"
    logged = revoked(gateway, "planner")
    assert (logged["reason"], logged["status"]) == ("no-policy-allows", 200)
    assert logged["revision"] == gateway.revision()
    assert float(str(logged["duration_ms"])) < LONGEST_S * 1000
    eventually(lambda: len(gateway.handoffs()) == 4)
    outcomes = sorted((each["from"].rpartition("/")[2], each["outcome"]) for each in gateway.handoffs())
    assert outcomes == [*[("coder", "completed")] * 2, *[("planner", "revoked")] * 2]
    numbers = dict(line.rsplit(" ", 1) for line in gateway.admin("/metrics").text.splitlines())
    assert 0 < float(numbers["phoenixflight_reauthorization_seconds"]) < LONGEST_S
    assert numbers['phoenixflight_refusals_total{policy="test",reason="no-policy-allows"}'] == "2.0"


def test_a_stream_ends_when_a_deny_comes_or_its_agent_is_no_longer_admitted(
    source: EventSource, start_gateway: StartGateway
) -> None:
    gateway = start_gateway([member(source.port, trust=0.5)])
    with listening(gateway.client("planner")) as planner, listening(gateway.client("coder")) as coder:
        enforce(gateway, policy(rule(), rule("no-planners", "deny", callers="planner")))
        assert last_words(planner) == "denied-by-policy"
        assert revoked(gateway, "planner")["rule"] == "no-planners"
        enforce(gateway, policy(rule(to={"minTrust": 0.9})))
        assert last_words(coder) == "no-policy-allows"
    assert "at executor-1 any more" in str(revoked(gateway, "coder")["detail"])


def test_a_stream_whose_agent_is_no_member_any_more_goes_on_while_policy_allows_it(
    source: EventSource, start_gateway: StartGateway
) -> None:
    gateway = start_gateway([member(source.port)], policy=BOTH)
    with listening(gateway.client("coder", http2=True)) as coder, listening(gateway.client("planner")) as planner:
        before = gateway.revision()
        write_agents(gateway.folder, [member(source.port, "another")])
        eventually(lambda: gateway.revision() != before)
        enforce(gateway, CODERS)
        assert last_words(planner) == "no-policy-allows"
        source.go_on.set()
        assert b"".join(coder) == b"data: 2\n\n"
    assert gateway.handoff(outcome="completed")["agent"] == "executor-1"


def test_a_request_that_still_waits_for_its_answer_is_told_why(raw_agent, start_gateway: StartGateway) -> None:
    asked = threading.Event()

    def silent(agent: RawAgent, connection: socket.socket) -> None:
        agent.read_head(connection)
        asked.set()
        connection.recv(1)

    gateway = start_gateway([member(raw_agent(silent).port)], policy=BOTH)

    def take_back() -> None:
        assert asked.wait(5)
        write_policy(gateway.folder, "test", CODERS)

    taker = threading.Thread(target=take_back)
    taker.start()
    with gateway.client() as client:
        response = client.post("/run", headers=CAPABILITY)
    taker.join()
    assert response.status_code == 403
    assert response.json()["type"] == "urn:phoenixflight:no-policy-allows"
    assert revoked(gateway, "planner")["status"] == 403


def test_a_websocket_ends_when_its_rule_goes(start_gateway: StartGateway, certs: Path) -> None:
    def echo(connection: websockets.sync.server.ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    with serve(echo, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        gateway = start_gateway([member(server.socket.getsockname()[1])], policy=BOTH)
        with connect_websocket(
            f"wss://127.0.0.1:{gateway.tls_port}/chat", ssl=client_context(certs), additional_headers=CAPABILITY
        ) as caller:
            caller.send("hello")
            assert caller.recv(5) == "hello"
            write_policy(gateway.folder, "test", CODERS)
            with pytest.raises(websockets.ConnectionClosedError):
                caller.recv(LONGEST_S)
        server.shutdown()
        thread.join()
    assert revoked(gateway, "planner")["reason"] == "no-policy-allows"


def short_lived(certs: Path, folder: Path, seconds: float) -> ssl.SSLContext:
    """The planner's, with a certificate that ends soon."""
    authority = Authority.load(certs / "ca.pem", certs / "ca-key.pem")
    pair = authority.issue(datetime.now(UTC), uris=[f"{AGENTS}/planner"], days=seconds / 86400)
    write_pair(folder, "short", *pair)
    context = client_context(certs, None)
    context.load_cert_chain(folder / "short.pem", folder / "short-key.pem")
    return context


def test_a_stream_ends_with_the_certificate_of_its_caller(
    source: EventSource, start_gateway: StartGateway, certs: Path, tmp_path: Path
) -> None:
    gateway = start_gateway([member(source.port)])
    context = short_lived(certs, tmp_path, 3)

    def client(http2: bool) -> httpx.Client:
        return httpx.Client(base_url=gateway.url, verify=context, http2=http2, timeout=LONGEST_S, trust_env=False)

    with listening(client(False)) as one, listening(client(True)) as other, listening(gateway.client()) as longer:
        for pieces in (one, other):
            assert last_words(pieces) == "identity-required"
        source.go_on.set()
        assert b"".join(longer) == b"data: 2\n\n"
    for protocol in ("http/1.1", "h2"):
        assert gateway.handoff(outcome="revoked", protocol=protocol)["reason"] == "identity-required"
