"""Policies, signed packets, and agents that tell a whole message from a part of one."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from gateway.agent import FlightAuth
from tests.conformance.test_http1 import OK
from tests.conftest import CAPABILITY, RawAgent, RunningGateway, write_policy
from tests.waiting import eventually

AGENTS = "spiffe://mesh.local/ns/agents/sa"
_LENGTH = re.compile(rb"\r\ncontent-length: ([0-9]+)\r\n", re.IGNORECASE)
_CHUNK = re.compile(rb"([0-9a-f]+)\r\n")


def rule(name: str = "agents", effect: str = "allow", *, callers: str = "**", **more: Any) -> dict[str, Any]:
    """A rule for callers below `AGENTS`."""
    return {"name": name, "effect": effect, "from": [f"{AGENTS}/{callers}"], **more}


def policy(*rules: dict[str, Any], name: str = "test", mode: str = "enforce") -> dict[str, Any]:
    """A TrustPolicy document about every capability."""
    return {
        "apiVersion": "phoenixflight.io/v1",
        "kind": "TrustPolicy",
        "metadata": {"name": name},
        "spec": {"mode": mode, "capabilities": ["*"], "rules": list(rules)},
    }


def enforce(gateway: RunningGateway, document: dict[str, Any]) -> None:
    """Replace the gateway's policy, and wait until the new one is in force."""
    before = gateway.revision()
    write_policy(gateway.folder, document["metadata"]["name"], document)
    eventually(lambda: gateway.revision() != before)


def signed(client: httpx.Client, auth: FlightAuth, **headers: str) -> httpx.Request:
    """A signed packet with a body, to be sent as often as one likes."""
    request = client.build_request("POST", "/run?x=1", headers={**CAPABILITY, **headers}, content=b"job")
    return next(auth.sync_auth_flow(request))


def svid_auth(certs: Path, name: str = "planner") -> FlightAuth:
    """Signs as the holder of a certificate."""
    return FlightAuth.from_svid(certs / f"{name}.pem", certs / f"{name}-key.pem")


def refusal(response: httpx.Response) -> tuple[int, str]:
    """The status, and the reason without its prefix."""
    return response.status_code, response.json()["type"].removeprefix("urn:phoenixflight:")


def take_messages(agent: RawAgent, connection: socket.socket) -> None:
    """Answer each whole request; record what came over the connection once it has ended."""
    received = b""
    try:
        while piece := connection.recv(65536):
            before, received = received, received + piece
            connection.sendall(OK * (len(bodies(received)) - len(bodies(before))))
    finally:
        agent.received.append(received)


def bodies(stream: bytes) -> list[bytes]:
    """The bodies of the requests in `stream` that are whole, as a naive agent reads them."""
    found: list[bytes] = []
    while b"\r\n\r\n" in stream:
        head, _, stream = stream.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        body = b""
        if length is not None:
            if len(stream) < int(length[1]):
                break
            body, stream = stream[: int(length[1])], stream[int(length[1]) :]
        elif b"transfer-encoding: chunked" in head:
            while chunk := _CHUNK.match(stream):
                size = int(chunk[1], 16)
                body += stream[chunk.end() : chunk.end() + size]
                stream = stream[chunk.end() + size + 2 :]
                if not size:
                    break
            else:
                break
        found.append(body)
    return found


def requests_on(connection: socket.socket) -> Iterator[bytes]:
    """What came on `connection` with each request that is whole, one after the other, until the other side closes."""
    while True:
        stream = b""
        while not bodies(stream):
            piece = connection.recv(65536)
            if not piece:
                return
            stream += piece
        yield stream
