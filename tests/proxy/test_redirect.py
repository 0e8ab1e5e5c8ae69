"""Connections that the kernel redirects to the gateway go where they were going, or nowhere.

In a network of the test's own, with iptables: what is redirected is known by the caller's address, not by its user.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import AF_INET6
from typing import Any

import httpx
import pytest

from tests.conftest import CAPABILITY, RunningGateway, launch, member
from tests.network import own_network

FIRST, SECOND, DENIED, DRAINING, SIXTH = "10.77.0.1", "10.77.0.2", "10.77.0.3", "10.77.0.4", "fd77::6"
ELSEWHERE = "10.77.0.9"
CALLER, CALLER_6 = "10.77.0.100", "fd77::100"
PORT, BOUND = 8080, 15002
POLICY = {
    "apiVersion": "phoenixflight.io/v1",
    "kind": "TrustPolicy",
    "metadata": {"name": "test"},
    "spec": {
        "capabilities": ["*"],
        "rules": [
            {
                "name": "trusted",
                "effect": "allow",
                "from": ["spiffe://mesh.local/ns/agents/**"],
                "to": {"minTrust": 0.5},
            }
        ],
    },
}


class Agent(BaseHTTPRequestHandler):
    """Says which address it was asked at."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = str(self.server.server_address[0]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Not in the test's output."""


class Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A gateway that ends resets its connections."""


class Server6(Server):
    address_family = AF_INET6


def _redirect(command: str, caller: str) -> None:
    rule = ["-p", "tcp", "-s", caller, "--dport", str(PORT), "-j", "REDIRECT", "--to-ports", str(BOUND)]
    done = subprocess.run([command, "-t", "nat", "-A", "OUTPUT", *rule], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"{command} cannot redirect here: {done.stderr.decode().strip()}")


def _listener(name: str, address: str) -> dict[str, Any]:
    assumed = "spiffe://mesh.local/ns/agents/sa/local"
    return {"name": name, "address": address, "tls": False, "assumedPrincipal": assumed, "originalDestination": True}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, certs: Path) -> Iterator[RunningGateway]:
    """A gateway to which everything is redirected that CALLER sends to PORT, wherever it goes."""
    if shutil.which("iptables") is None or shutil.which("ip6tables") is None:
        pytest.skip("no iptables command")
    with own_network(FIRST, SECOND, DENIED, DRAINING, ELSEWHERE, CALLER, SIXTH, CALLER_6):
        _redirect("iptables", CALLER)
        _redirect("ip6tables", CALLER_6)
        agents = [Server((host, PORT), Agent) for host in (FIRST, SECOND, DENIED, DRAINING, ELSEWHERE)]
        agents.append(Server6((SIXTH, PORT), Agent))
        for agent in agents:
            threading.Thread(target=agent.serve_forever, daemon=True).start()
        members = [
            member(PORT, "first") | {"address": f"{FIRST}:{PORT}"},
            member(PORT, "second") | {"address": f"{SECOND}:{PORT}"},
            member(PORT, "denied", trust=0.1) | {"address": f"{DENIED}:{PORT}"},
            member(PORT, "draining", state="draining") | {"address": f"{DRAINING}:{PORT}"},
            member(PORT, "sixth") | {"address": f"[{SIXTH}]:{PORT}"},
        ]
        folder = tmp_path_factory.mktemp("redirect")
        listeners = [_listener("bound", f"127.0.0.1:{BOUND}"), _listener("bound-6", f"[::1]:{BOUND}")]
        running = launch(
            folder, certs, members, policy=POLICY, listeners=listeners, recorder={"folder": str(folder / "records")}
        )
        yield running
        running.stop()
        for agent in agents:
            agent.shutdown()
            agent.server_close()


def call(host: str, path: str, *, caller: str = CALLER, port: int = PORT, http2: bool = False) -> httpx.Response:
    """What CALLER gets of `host`; each path is its own, to be found in the log."""
    where = f"[{host}]" if ":" in host else host
    transport = httpx.HTTPTransport(local_address=caller, http1=not http2, http2=http2)
    with httpx.Client(transport=transport, timeout=10) as client:
        return client.get(f"http://{where}:{port}{path}", headers=CAPABILITY)


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].removeprefix("urn:phoenixflight:")


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize("host", [FIRST, SECOND])
def test_a_packet_goes_to_the_agent_that_was_called(gateway: RunningGateway, host: str, http2: bool) -> None:
    path = f"/{host}/{http2}"
    answers = [call(host, path, http2=http2) for _ in range(5)]  # each of another conversation
    assert [(each.status_code, each.text) for each in answers] == [(200, host)] * 5
    logged = gateway.handoff(path=path, outcome="completed")
    assert logged["destination"] == f"{host}:{PORT}"
    assert logged["protocol"] == ("h2" if http2 else "http/1.1")


def test_a_conversation_that_is_elsewhere_does_not_take_the_packet_there(gateway: RunningGateway) -> None:
    headers = {**CAPABILITY, "flight-conversation": '"c-1"'}
    for host in (FIRST, SECOND, FIRST):
        with httpx.Client(transport=httpx.HTTPTransport(local_address=CALLER)) as client:
            assert client.get(f"http://{host}:{PORT}/talk", headers=headers).text == host


def test_ipv6_is_redirected_alike(gateway: RunningGateway) -> None:
    assert call(SIXTH, "/six", caller=CALLER_6).text == SIXTH
    assert gateway.handoff(path="/six")["destination"] == f"[{SIXTH}]:{PORT}"


def test_who_is_no_member_is_not_reached_through_the_gateway(gateway: RunningGateway) -> None:
    answer = call(ELSEWHERE, "/out")
    assert refusal(answer) == (403, "destination-refused")
    assert f"{ELSEWHERE}:{PORT} is no member's address" in answer.json()["detail"]
    assert gateway.handoff(path="/out")["destination"] == f"{ELSEWHERE}:{PORT}"


def test_policy_has_its_say_of_the_agent_that_was_called(gateway: RunningGateway) -> None:
    answer = call(DENIED, "/denied")
    assert refusal(answer) == (403, "destination-refused")
    assert "no policy lets code.execute go to denied" in answer.json()["detail"]


def test_nobody_stands_in_for_an_agent_that_is_not_ready(gateway: RunningGateway) -> None:
    assert refusal(call(DRAINING, "/draining")) == (503, "no-eligible-agent")


def test_a_connection_that_nothing_redirected_goes_nowhere(gateway: RunningGateway) -> None:
    answer = call("127.0.0.1", "/straight", caller="127.0.0.1", port=BOUND)
    assert refusal(answer) == (403, "destination-refused")


def test_it_is_explained_with_the_destination(gateway: RunningGateway) -> None:
    call(SECOND, "/explained")
    flight_id = gateway.handoff(path="/explained")["flight_id"]
    explained = gateway.admin(f"/explain?id={flight_id}").json()
    assert explained["recorded"]["destination"] == f"{SECOND}:{PORT}"
    assert explained["explanation"]["agent"] == "second"
