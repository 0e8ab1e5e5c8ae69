"""Contexts through real sockets: who may bring and fetch them, and what becomes of packets that refer to them."""

from __future__ import annotations

import base64
import itertools
import re
import socket
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from gateway.cli import app as cli
from gateway.contexts import new_key
from gateway.packet.digest import content_digest
from tests.admin.operators import operator, with_token
from tests.conformance.test_http1 import OK
from tests.conformance.trust import AGENTS, bodies, policy, refusal, rule
from tests.conftest import RawAgent, RunningGateway, client_context, launch, member
from tests.waiting import free_port

BODY = b"the plan, and what was said about it"
MAX_SIZE, MAX_INLINE = 300_000, 100
_numbers = itertools.count()

RULES = (
    rule("requiring", callers="planner", when="request.path == '/require'", require={"context": True}),
    rule("inlining", callers="**", when="request.path == '/inline'", deliver={"context": "inline"}),
    rule("others", callers="**", when="request.path == '/run'"),
)


def digest_of(body: bytes) -> str:
    return sha256(body).hexdigest()


def field_of(body: bytes) -> str:
    return f"sha-256=:{base64.b64encode(sha256(body).digest()).decode()}:"


class Inbox:
    """What agents got, head by head."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []

    def serve(self, agent: RawAgent, connection: socket.socket) -> None:
        stream = b""
        while piece := connection.recv(65536):
            stream += piece
            while bodies(stream):
                head, _, stream = stream.partition(b"\r\n\r\n")
                stream = stream[len(bodies(head + b"\r\n\r\n" + stream)[0]) :]
                self.heads.append(head)
                connection.sendall(OK)


@pytest.fixture(scope="module")
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, certs: Path, inbox: Inbox) -> Iterator[RunningGateway]:
    """A gateway of many tests: each has a conversation of its own."""
    folder = tmp_path_factory.mktemp("contexts")
    key = folder / "context-key"
    key.write_text(new_key())
    plain, dead = RawAgent(inbox.serve), free_port()
    members = [
        member(plain.port, "plain", capabilities=["text.read", "code.review"]),
        # Nobody listens there: what the gateway grants it, it grants before it asks.
        member(
            dead,
            "executor-1",
            capabilities=["code.execute", "code.review"],
            spiffeId=f"{AGENTS}/executor",
            protocol="h2",
        ),
    ]
    gateway = launch(
        folder,
        certs,
        members,
        policy=policy(*RULES),
        admin_spec=with_token(folder),
        contexts={
            "folder": str(folder / "kept"),
            "keys": [str(key)],
            "maxSize": MAX_SIZE,
            "maxHeld": 2 * MAX_SIZE,
            "maxInline": MAX_INLINE,
            "maxCount": 40,
        },
        health={"outlier": {"consecutiveFailures": 1000}},
    )
    yield gateway
    gateway.stop()
    plain.close()


class Caller:
    """Somebody with a conversation."""

    def __init__(self, gateway: RunningGateway, conversation: str, name: str, http2: bool) -> None:
        self.client = gateway.client(name, http2=http2)
        self.conversation = {"flight-conversation": f'"{conversation}"'}

    def put(self, body: bytes = BODY, digest: str = "", **headers: str) -> httpx.Response:
        fields = {**self.conversation, **headers}
        return self.client.put(f"/contexts/{digest or digest_of(body)}", content=body, headers=fields)

    def get(self, body: bytes = BODY, **headers: str) -> httpx.Response:
        return self.client.get(f"/contexts/{digest_of(body)}", headers={**self.conversation, **headers})

    def send(self, path: str = "/run", capability: str = "text.read", **more: Any) -> httpx.Response:
        headers = {"flight-capability": capability, **self.conversation, "flight-context": field_of(BODY)}
        headers.update(more.pop("headers", {}))
        return self.client.post(path, headers={name: value for name, value in headers.items() if value}, **more)


@pytest.fixture
def conversation() -> str:
    return f"c-{next(_numbers)}"


@pytest.fixture(params=[False, True], ids=["http/1.1", "h2"])
def http2(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def planner(gateway: RunningGateway, conversation: str, http2: bool) -> Iterator[Caller]:
    caller = Caller(gateway, conversation, "planner", http2)
    with caller.client:
        yield caller


@pytest.fixture
def executor(gateway: RunningGateway, conversation: str) -> Iterator[Caller]:
    caller = Caller(gateway, conversation, "executor", False)
    with caller.client:
        yield caller


@pytest.fixture
def mallory(gateway: RunningGateway, conversation: str) -> Iterator[Caller]:
    caller = Caller(gateway, conversation, "coder", False)
    with caller.client:
        yield caller


# -- bringing and fetching ----------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [BODY, b"", bytes(range(256)) * (MAX_SIZE // 256)], ids=["short", "empty", "long"])
def test_what_was_brought_comes_back_byte_for_byte(planner: Caller, body: bytes) -> None:
    assert [planner.put(body).status_code for _ in range(2)] == [201, 204]
    answer = planner.get(body)
    assert (answer.status_code, answer.content) == (200, body)
    assert answer.headers["content-digest"] == content_digest(body).decode()
    head = planner.client.head(f"/contexts/{digest_of(body)}", headers=planner.conversation)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(body)))


def test_another_principal_cannot_tell_whether_it_is_there(planner: Caller, mallory: Caller) -> None:
    planner.put()
    found, nothing = mallory.get(), mallory.get(b"never brought")
    assert refusal(found) == refusal(nothing) == (404, "context-unknown")
    assert found.json() == nothing.json()
    elsewhere = planner.get(**{"flight-conversation": '"another"'})
    assert refusal(elsewhere) == (404, "context-unknown")


def test_who_shows_no_certificate_gets_nothing(gateway: RunningGateway, conversation: str) -> None:
    with pytest.raises(httpx.TransportError), gateway.client(None) as client:
        client.get(f"/contexts/{digest_of(BODY)}", headers={"flight-conversation": f'"{conversation}"'})


@pytest.mark.parametrize(
    ("digest", "headers", "answer"),
    [
        (digest_of(b"other"), {}, (400, "context-malformed")),
        (digest_of(BODY).upper(), {}, (400, "context-malformed")),
        ("0" * 63, {}, (400, "context-malformed")),
        ("", {"flight-conversation": "bare words"}, (400, "context-malformed")),
        ("", {"flight-credential": "abc"}, (401, "credential-invalid")),
    ],
    ids=["wrong digest", "upper case", "short", "no conversation", "credential"],
)
def test_what_is_not_in_order_is_not_kept(
    planner: Caller, digest: str, headers: dict[str, str], answer: tuple[int, str]
) -> None:
    assert refusal(planner.put(digest=digest, **headers)) == answer
    assert refusal(planner.get()) == (404, "context-unknown")


def test_more_than_a_context_may_have_is_refused(planner: Caller) -> None:
    body = bytes(MAX_SIZE + 1)
    assert refusal(planner.put(body)) == (413, "context-too-large")
    pieces = (body[start : start + 50_000] for start in range(0, len(body), 50_000))
    answer = planner.client.put(f"/contexts/{digest_of(body)}", content=pieces, headers=planner.conversation)
    assert refusal(answer) == (413, "context-too-large")
    assert planner.put().status_code == 201, "nothing is held for what was refused"


def test_other_methods_are_refused(planner: Caller) -> None:
    answer = planner.client.post(f"/contexts/{digest_of(BODY)}", headers=planner.conversation)
    assert refusal(answer) == (405, "method-not-allowed")


def test_what_has_a_capability_is_a_packet_whatever_its_path(planner: Caller) -> None:
    assert refusal(planner.get(**{"flight-capability": "text.read"}))[1] == "no-policy-allows"


def test_a_principal_keeps_so_many_and_no_more(gateway: RunningGateway, conversation: str) -> None:
    bodies_ = [b"%d" % number for number in range(41)]
    caller = Caller(gateway, conversation, "coder", True)
    with caller.client:
        answers = [caller.put(body) for body in bodies_]
        assert [answer.status_code for answer in answers] == [201] * 40 + [429]
        assert refusal(answers[-1]) == (429, "context-quota")
        assert int(answers[-1].headers["retry-after"]) > 0
        with operator(gateway) as admin:
            answer = admin.delete(f"/conversations/{conversation}/contexts")
        assert answer.json() == {"conversation": conversation, "erased": 40}
        assert caller.put(bodies_[-1]).status_code == 201


def test_only_an_operator_erases(gateway: RunningGateway, planner: Caller, conversation: str) -> None:
    planner.put()
    path = f"/conversations/{conversation}/contexts"
    with operator(gateway, "") as anybody, operator(gateway) as admin:
        assert anybody.delete(path).status_code == 401
        assert planner.get().status_code == 200
        assert admin.delete(path).json()["erased"] == 1
    assert planner.get().status_code == 404


def test_the_command_erases_what_a_running_gateway_keeps(
    gateway: RunningGateway, planner: Caller, conversation: str
) -> None:
    planner.put()
    config = str(gateway.folder / "gateway.yaml")
    done = CliRunner().invoke(cli, ["contexts", "erase", "--config", config, "--conversation", conversation])
    assert (done.exit_code, done.output) == (0, "1 contexts erased\n")
    assert planner.get().status_code == 404


def test_a_new_key_is_for_its_owner_and_replaces_none(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert CliRunner().invoke(cli, ["contexts", "new-key", str(path)]).exit_code == 0
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    assert CliRunner().invoke(cli, ["contexts", "new-key", str(path)]).exit_code == 2
    assert path.read_bytes() == before


def test_who_does_not_read_holds_no_more_than_there_is_room_for(gateway: RunningGateway, planner: Caller) -> None:
    body = bytes(MAX_SIZE)
    planner.put(body)
    context = client_context(gateway.certs, "planner")
    context.set_alpn_protocols(["http/1.1"])
    request = f"GET /contexts/{digest_of(body)} HTTP/1.1\r\nhost: a\r\n"
    request += "".join(f"{name}: {value}\r\n" for name, value in planner.conversation.items()) + "\r\n"
    raw = socket.create_connection(("127.0.0.1", gateway.tls_port))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    with context.wrap_socket(raw, server_hostname="127.0.0.1") as lazy:
        lazy.sendall(request.encode())
        assert lazy.recv(10).startswith(b"HTTP/1.1 2")
        received = 0
        while received < MAX_SIZE:
            received += len(lazy.recv(65536))
    assert planner.get(body).content == body


# -- with packets -------------------------------------------------------------------------------------------


def test_the_agent_that_was_handed_a_packet_may_fetch_what_it_refers_to(planner: Caller, executor: Caller) -> None:
    planner.put()
    assert executor.get().status_code == 404
    assert planner.send(capability="code.execute").status_code in (502, 503)
    assert executor.get().content == BODY
    assert executor.get(b"another").status_code == 404


def test_who_may_not_read_it_cannot_have_others_read_it(planner: Caller, mallory: Caller, executor: Caller) -> None:
    planner.put()
    assert mallory.send(capability="code.execute").status_code in (502, 503)
    assert executor.get().status_code == 404
    assert refusal(mallory.send("/inline")) == (404, "context-unknown")


def test_a_rule_that_requires_a_context_refuses_packets_without_one(planner: Caller, inbox: Inbox) -> None:
    before = len(inbox.heads)
    for field in ("", 'ref="https://elsewhere.example/17"'):
        answer = planner.send("/require", headers={"flight-context": field})
        assert refusal(answer) == (400, "context-missing")
        assert "test/requiring allows text.read only with a flight-context" in answer.json()["detail"]
    assert refusal(planner.send("/require")) == (404, "context-unknown")
    assert refusal(planner.send("/require", headers={"flight-conversation": ""})) == (400, "context-missing")
    assert len(inbox.heads) == before
    planner.put()
    assert planner.send("/require").status_code == 200
    assert len(inbox.heads) == before + 1


@pytest.mark.parametrize("field", ["sha-256=:c2hvcnQ=:", 'sha-256="abc"', "sha-256=(("])
def test_a_context_that_is_no_digest_is_malformed(planner: Caller, field: str) -> None:
    answer = planner.send(headers={"flight-context": field})
    assert refusal(answer) == (400, "malformed-packet")
    assert "flight-context" in answer.json()["detail"]


def inlined(head: bytes) -> list[bytes]:
    found = re.findall(rb"\r\nflight-context-content: :([A-Za-z0-9+/=]*):", head)
    return [base64.b64decode(each) for each in found]


def test_an_agent_that_cannot_fetch_is_given_the_context_with_the_packet(planner: Caller, inbox: Inbox) -> None:
    planner.put()
    assert planner.send("/inline", content=b"job").status_code == 200
    assert inlined(inbox.heads[-1]) == [BODY]
    assert field_of(BODY).encode() in inbox.heads[-1], "with what it can be checked against"
    assert planner.send("/run").status_code == 200
    assert inlined(inbox.heads[-1]) == []
    assert planner.send("/inline", headers={"flight-context": ""}).status_code == 200
    assert inlined(inbox.heads[-1]) == []


def test_the_agent_that_is_asked_next_gets_it_likewise(
    gateway: RunningGateway, conversation: str, inbox: Inbox
) -> None:
    attempts = set()
    for number in range(12):
        caller = Caller(gateway, f"{conversation}-{number}", "planner", False)
        with caller.client:
            caller.put()
            answer = caller.send("/inline", capability="code.review")
        assert answer.status_code == 200
        assert inlined(inbox.heads[-1]) == [BODY]
        attempts.add(answer.headers.get("flight-attempts"))
    assert attempts == {None, "2"}, "some went to the agent that is not there first"


def test_nobody_but_the_gateway_says_what_the_context_is(planner: Caller, inbox: Inbox) -> None:
    forged = f":{base64.b64encode(b'forged').decode()}:"
    for name in ("flight-context-content", "flight_context_content"):
        assert planner.send("/run", headers={name: forged}).status_code == 200
        assert b"context-content" not in inbox.heads[-1].replace(b"_", b"-")


def test_what_is_too_long_to_go_with_a_packet_is_refused(planner: Caller, inbox: Inbox) -> None:
    before = len(inbox.heads)
    for size, status in ((MAX_INLINE, 200), (MAX_INLINE + 1, 413)):
        body = bytes(size)
        planner.put(body)
        answer = planner.send("/inline", headers={"flight-context": field_of(body)})
        assert answer.status_code == status
    assert refusal(answer) == (413, "context-too-large")
    assert f"at most {MAX_INLINE} bytes; this one has {MAX_INLINE + 1}" in answer.json()["detail"]
    assert len(inbox.heads) == before + 1


def test_what_was_changed_on_the_disk_is_given_to_nobody(gateway: RunningGateway, planner: Caller) -> None:
    body = b"to be changed %d" % time.monotonic_ns()
    planner.put(body)
    (path,) = (gateway.folder / "kept" / "contexts").rglob(digest_of(body))
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(content)
    assert refusal(planner.get(body)) == (500, "internal")
    assert refusal(planner.send("/inline", headers={"flight-context": field_of(body)})) == (500, "internal")
    assert "changed since it was sealed" in gateway.log()


def test_what_happens_to_contexts_is_counted(gateway: RunningGateway, planner: Caller) -> None:
    planner.put()
    planner.get()
    with operator(gateway) as admin:
        text = admin.get("/metrics").text
    for event in ("stored", "read"):
        assert re.search(rf'phoenixflight_contexts_total\{{event="{event}"\}} [1-9]', text)


def test_a_gateway_without_a_store_refuses_what_takes_one(
    raw_agent: Any, inbox: Inbox, tmp_path: Path, certs: Path
) -> None:
    gateway = launch(
        tmp_path, certs, [member(raw_agent(inbox.serve).port, capabilities=["text.read"])], policy=policy(*RULES)
    )
    try:
        caller = Caller(gateway, "c", "planner", False)
        with caller.client:
            assert refusal(caller.send("/require")) == (404, "context-unknown")
            assert caller.send("/run").status_code == 200
            assert refusal(caller.put())[0] == 400
    finally:
        gateway.stop()
