"""docs/admin.md tells of every endpoint, and its examples are what the gateway answers."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from starlette.routing import Route

from gateway.admin.access import Access
from gateway.admin.app import make_app
from gateway.admin.merged import make_merged_app
from gateway.contexts import new_key
from tests.admin.operators import ASKING, TOKEN, asking, operator, order, packet, with_token
from tests.admin.test_conversations import spending
from tests.conftest import RawAgent, RunningGateway, launch, member
from tests.waiting import eventually

PAGE = (Path(__file__).parents[2] / "docs" / "admin.md").read_text()
SECTION = re.compile(r"^### `([A-Z]+) (/\S*)`\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
EXAMPLE = re.compile(r"```sh\n(.*?)\n```(?:\n```json\n(.*?)\n```)?", re.DOTALL)
DASHBOARD = {("GET", "/"), ("GET", "/page/{name}")}
"""Told of in docs/dashboard.md."""


class Example(NamedTuple):
    """What is asked, and what is said to be answered."""

    name: str
    command: str
    answer: str


def examples() -> Iterator[Example]:
    for method, path, text in SECTION.findall(PAGE):
        ((command, answer),) = EXAMPLE.findall(text)
        yield Example(f"{method} {path}", command, answer)


@pytest.fixture(scope="module")
def gateway(certs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("told")
    agent = RawAgent(spending)
    (folder / "context-key").write_text(new_key())
    running = launch(
        folder,
        certs,
        [member(agent.port), member(agent.port, "executor-2")],
        policy=ASKING,
        admin_spec=with_token(folder),
        contexts={"folder": "contexts", "keys": ["context-key"]},
    )
    with running.client() as client:
        client.put(f"/contexts/{sha256().hexdigest()}", headers={"flight-conversation": '"c1"'})
        head = packet("p1", conversation="c1", task="t1", budget="tokens=20000, hops=4", timeout="30000")
        client.post("/run", headers=head)
        client.post("/run", headers=packet("p2", conversation="c1", task="t1", parent="p1"))
    with running.client("mallory") as client:
        client.post("/run", headers=packet("p3", conversation="c1"))
    with operator(running) as client:
        revoked = "/revocations?kind=conversation&value=c-17&why=it+loops"
        client.post(revoked, headers={"content-type": "application/json"})
    yield running
    running.stop()
    agent.close()


def requested(command: str, port: int) -> httpx.Request:
    """The request that a command with curl makes."""
    words = iter(shlex.split(command.replace("$TOKEN", TOKEN)))
    assert next(words) == "curl"
    method, url, body, headers = "GET", "", None, {}
    for word in words:
        if word == "-X":
            method = next(words)
        elif word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word == "-d":
            body = next(words)
        elif word != "-N":
            url = word.replace("127.0.0.1:9901", f"127.0.0.1:{port}")
    return httpx.Request(method, url, headers=headers, content=body)


def holds(told: Any, came: Any, where: str) -> None:
    """What is told is there, of the same kind; there may be more."""
    if isinstance(told, dict):
        assert isinstance(came, dict), where
        assert told.keys() <= came.keys(), where
        for name, value in told.items():
            holds(value, came[name], f"{where}.{name}")
    elif isinstance(told, list):
        assert isinstance(came, list), where
        for at, (value, found) in enumerate(zip(told, came, strict=False)):
            holds(value, found, f"{where}[{at}]")
        assert bool(told) <= bool(came), where
    elif isinstance(told, float):
        assert isinstance(came, (int, float)), where
    else:
        assert type(told) is type(came), where


@pytest.mark.parametrize(
    "example", [each for each in examples() if "/live" not in each.name], ids=lambda each: each.name
)
def test_an_example_is_what_the_gateway_answers(
    gateway: RunningGateway, admin_of: httpx.Client, example: Example
) -> None:
    command = example.command
    with asking(gateway, "p4") if "/approvals" in command else nullcontext():
        if "/approvals" in command:
            (waiting,) = eventually(lambda: admin_of.get("/approvals").json()["approvals"])
            command = command.replace("0199c0de-7a3c-7c1f-8e55-0a6f2b9d4e11", waiting["id"])
        answer = admin_of.send(requested(command, gateway.admin_port))
    eventually(lambda: admin_of.get("/approvals").json()["approvals"] == [])
    assert answer.status_code == 200, answer.text
    if example.answer:
        holds(json.loads(example.answer), answer.json(), "answer")
    order(admin_of, "members/executor-1/restore")


@pytest.fixture
def admin_of(gateway: RunningGateway) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=f"http://127.0.0.1:{gateway.admin_port}",
        headers={"authorization": f"Bearer {TOKEN}"},
        trust_env=False,
        timeout=20,
    ) as client:
        yield client


def test_the_stream_is_as_it_is_told(gateway: RunningGateway, admin_of: httpx.Client) -> None:
    ((_, _, text),) = [each for each in SECTION.findall(PAGE) if each[1] == "/live"]
    (told,) = re.findall(r"^data: (.*)$", text, re.MULTILINE)
    with admin_of.stream("GET", "/live") as answer:
        line = next(line for line in answer.iter_lines() if line.startswith("data: "))
    assert json.loads(told).keys() == json.loads(line.removeprefix("data: ")).keys()


class Nothing:
    """Stands where no endpoint is asked."""

    def __getattr__(self, name: str) -> Nothing:
        return self


@pytest.mark.parametrize(
    "app", [make_app(Nothing(), Access()), make_merged_app(Nothing(), Access())], ids=["one", "all"]
)
def test_every_endpoint_is_told_of_and_no_other(app: Any) -> None:
    routes = {
        (method, re.sub(r":\w+}", "}", route.path))
        for route in app.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    told = {(method, path) for method, path, _ in SECTION.findall(PAGE)}
    assert routes - DASHBOARD == told
