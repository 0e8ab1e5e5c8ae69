"""An admin port that knows operators, and what they ask of it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from tests.conftest import POLICY, RawAgent, RunningGateway
from tests.waiting import eventually

TOKEN = "correct-horse-battery-staple"


ASKING = {
    **POLICY,
    "spec": {
        "capabilities": ["*"],
        "rules": [
            *POLICY["spec"]["rules"],  # type: ignore[index]
            {
                "name": "costly",
                "effect": "ask",
                "from": ["spiffe://mesh.local/ns/agents/**"],
                "when": "request.path == '/costly'",
                "approval": {"timeout": "10m", "reason": "costs money"},
            },
        ],
    },
}
"""A policy of which somebody has to approve what is asked of the path ``/costly``."""


def asking(gateway: RunningGateway, flight_id: str) -> socket.socket:
    """A packet that waits for an approval, until the connection is closed."""
    connection = socket.create_connection(("127.0.0.1", gateway.plain_port), timeout=10)
    head = {**packet(flight_id, conversation="talk", task="buy"), "host": "gateway"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    connection.sendall(f"GET /costly HTTP/1.1\r\n{lines}\r\n".encode())
    return connection


def with_token(folder: Path) -> dict[str, Any]:
    """The `admin` part of a gateway whose operators show `TOKEN`."""
    file = folder / "admin-token"
    file.write_text(f"{TOKEN}\n")
    return {"tokenFile": str(file)}


def operator(gateway: RunningGateway, token: str = TOKEN) -> httpx.Client:
    """Somebody who shows the token."""
    return httpx.Client(
        base_url=f"http://127.0.0.1:{gateway.admin_port}",
        headers={"authorization": f"Bearer {token}"} if token else {},
        timeout=20,
        trust_env=False,
    )


def order(client: httpx.Client, path: str, **headers: str) -> httpx.Response:
    """Ask for an operation."""
    return client.post(f"/operations/{path}", headers={"content-type": "application/json", **headers})


class Watching(AbstractContextManager["Watching"]):
    """Reads ``/live`` in a thread; `events` are those that have come, as names and values."""

    def __init__(self, client: httpx.Client, query: str = "") -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.ended = threading.Event()
        self._client, self._query = client, query
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._stop = False

    def __enter__(self) -> Watching:
        self._thread.start()
        eventually(lambda: self.named("state"))
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stop = True  # a state comes each second
        self._thread.join(5)

    def named(self, name: str) -> list[dict[str, Any]]:
        """The values of the events of one name."""
        return [value for each, value in list(self.events) if each == name]

    @property
    def ids(self) -> list[str]:
        """Of the packets whose handoffs have come."""
        return [each["flight_id"] for each in self.named("handoff")]

    def _read(self) -> None:
        name = ""
        try:
            with self._client.stream("GET", f"/live{self._query}") as answer:
                for line in answer.iter_lines():
                    kind, _, value = line.partition(": ")
                    if kind == "event":
                        name = value
                    elif kind == "data":
                        self.events.append((name, json.loads(value)))
                    if self._stop:
                        return
        except httpx.TransportError:
            return  # the gateway is gone: tests look at what has come
        finally:
            self.ended.set()


def ok(agent: RawAgent, connection: Any) -> None:
    """Answers each request."""
    while True:
        agent.read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


def held(release: threading.Event) -> Callable[[RawAgent, Any], None]:
    """Answers once `release` is set."""

    def serve(agent: RawAgent, connection: Any) -> None:
        agent.read_head(connection)
        release.wait(30)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    return serve


def packet(flight_id: str, **fields: str) -> dict[str, str]:
    """The head of a packet: `fields` are strings of it, but for those whose values are no strings."""
    texts = {f"flight-{name}": f'"{value}"' for name, value in fields.items() if name not in ("budget", "timeout")}
    others = {f"flight-{name}": fields[name] for name in ("budget", "timeout") if name in fields}
    return {"flight-capability": "code.execute", "flight-id": f'"{flight_id}"', **texts, **others}
