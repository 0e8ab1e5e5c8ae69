"""Packets that wait until somebody approves them, as callers, agents and approvers meet them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from gateway.cli import app
from tests.admin.operators import TOKEN, with_token
from tests.conformance.test_http1 import answer_each
from tests.conformance.trust import AGENTS, policy, refusal, rule
from tests.conftest import CAPABILITY, RawAgent, RunningGateway, client_context, launch, member, write_policy
from tests.waiting import eventually, free_port

PROD = {"to": {"labels": {"tier": "prod"}}}


def asks(name: str, **approval: Any) -> dict[str, Any]:
    """A rule that asks about packets to a path of its own name."""
    return rule(name, "ask", when=f"request.path == '/{name}'", approval=approval)


RULES = policy(
    rule(),
    asks("risky", timeout="30s", reason="costs money"),
    asks("brief", timeout="300ms"),
    asks("coders", approvers=[f"{AGENTS}/coder"]),
    asks("first"),
    {**asks("second"), "when": "request.path == '/first'"},
    rule("prod", "ask", approval={"timeout": "200ms"}, **PROD),
)


@pytest.fixture(scope="module")
def agent() -> Iterator[RawAgent]:
    agent = RawAgent(answer_each)
    yield agent
    agent.close()


@pytest.fixture(scope="module")
def gateway(certs: Path, tmp_path_factory: pytest.TempPathFactory, agent: RawAgent) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("asking")
    spec = {"tls": True, "allow": [f"{AGENTS}/coder", f"{AGENTS}/planner"], **with_token(folder)}
    members = [
        member(agent.port),
        member(free_port(), "gone", capabilities=["code.retry"]),
        member(agent.port, "prod", capabilities=["code.retry"], labels={"tier": "prod"}),
    ]
    running = launch(folder, certs, members, policy=RULES, admin_spec=spec)
    yield running
    running.stop()


@pytest.fixture
def sending(gateway: RunningGateway) -> Iterator[Callable[..., Future[httpx.Response]]]:
    """Sends a packet in a thread of its own."""
    with ThreadPoolExecutor() as pool:
        yield lambda path, *who, **fields: pool.submit(send, gateway, path, *who, **fields)


def send(gateway: RunningGateway, path: str, who: str = "planner", **fields: str) -> httpx.Response:
    headers = {f"flight-{name.replace('_', '-')}": value for name, value in fields.items()}
    with gateway.client(who) as client:
        return client.post(path, headers={**CAPABILITY, **headers}, content=b"the-payload")


def approver(gateway: RunningGateway, name: str | None = None, token: str = TOKEN) -> httpx.Client:
    """An operator by certificate, or by token."""
    headers = {} if name is not None or not token else {"authorization": f"Bearer {token}"}
    url = f"{gateway.admin_scheme}://127.0.0.1:{gateway.admin_port}"
    context = client_context(gateway.certs, name)
    return httpx.Client(base_url=url, headers=headers, verify=context, timeout=10, trust_env=False)


def waiting(gateway: RunningGateway, rule: str) -> dict[str, Any]:
    """The packet that waits because of `rule`, once it does."""

    def look() -> dict[str, Any] | None:
        with approver(gateway) as client:
            found = client.get("/approvals").json()["approvals"]
        return next((each for each in found if each["rule"] == rule), None)

    return eventually(look)


def answer(gateway: RunningGateway, id_: str, decision: str, who: str | None = None, **more: str) -> httpx.Response:
    with approver(gateway, who) as client:
        return client.post(f"/approvals/{id_}", json={"decision": decision, **more})


def counted(gateway: RunningGateway, outcome: str) -> float:
    with approver(gateway) as client:
        lines = client.get("/metrics").text.splitlines()
    name = f'phoenixflight_approvals_total{{outcome="{outcome}"}} '
    return next(float(line.removeprefix(name)) for line in lines if line.startswith(name))


def test_a_packet_waits_until_it_is_approved_and_then_reaches_its_agent(
    gateway: RunningGateway, agent: RawAgent, sending: Callable[..., Future[httpx.Response]]
) -> None:
    before = len(agent.received)
    response = sending("/risky", id='"w1"', conversation='"talk"', task='"t1"')
    told = waiting(gateway, "risky")
    assert len(agent.received) == before
    assert not response.done()
    known = {
        "policy": "test",
        "from": f"{AGENTS}/planner",
        "capability": "code.execute",
        "agent": "executor-1",
        "agent_capabilities": ["code.execute"],
        "flight_id": "w1",
        "conversation": "talk",
        "task": "t1",
        "reason": "costs money",
    }
    assert known.items() <= told.items()
    assert "payload" not in json.dumps(told)
    done = answer(gateway, told["id"], "approve", "coder", why="go ahead")
    assert (done.status_code, done.json()["by"]) == (200, f"{AGENTS}/coder")
    assert response.result(10).status_code == 200
    assert len(agent.received) == before + 1
    logged = gateway.handoff(flight_id="w1")
    assert (logged["outcome"], logged["rule"]) == ("completed", "risky")
    assert logged["approval"].startswith(f"test/risky approved by {AGENTS}/coder after ")
    assert logged["approval"].endswith(f" s, id {told['id']}: go ahead")
    assert answer(gateway, told["id"], "approve").status_code == 404


def test_a_packet_that_is_denied_is_refused_with_the_approver_s_reason(
    gateway: RunningGateway, agent: RawAgent, sending: Callable[..., Future[httpx.Response]]
) -> None:
    before = len(agent.received)
    response = sending("/risky", id='"d1"')
    assert answer(gateway, waiting(gateway, "risky")["id"], "deny", why="not on a Friday").status_code == 200
    refused = response.result(10)
    assert refusal(refused) == (403, "approval-denied")
    assert "not on a Friday" in refused.json()["detail"]
    assert len(agent.received) == before
    logged = gateway.handoff(flight_id="d1")
    assert (logged["outcome"], logged["policy"], logged["rule"]) == ("refused", "test", "risky")
    assert "denied by token from 127.0.0.1" in logged["approval"]


def test_a_packet_that_nobody_answers_for_is_refused(gateway: RunningGateway) -> None:
    begun = time.monotonic()
    assert refusal(send(gateway, "/brief", id='"b1"')) == (504, "approval-timeout")
    assert 0.3 <= time.monotonic() - begun < 5
    assert "timed-out after 0.3 s" in gateway.handoff(flight_id="b1")["approval"]
    assert refusal(send(gateway, "/risky", timeout="200")) == (504, "deadline-exceeded"), "its own time runs on"
    eventually(lambda: counted(gateway, "withdrawn") >= 1)


def test_what_a_caller_that_is_gone_asked_for_is_withdrawn(gateway: RunningGateway) -> None:
    with gateway.client() as client, pytest.raises(httpx.ReadTimeout):
        client.post("/risky", headers={**CAPABILITY, "flight-id": '"gone"'}, timeout=0.3)
    assert "withdrawn" in gateway.handoff(flight_id="gone", outcome="cancelled")["approval"]
    with approver(gateway) as client:
        assert client.get("/approvals").json() == {"approvals": []}


def test_only_those_whom_the_rule_names_may_answer_and_never_for_themselves(
    gateway: RunningGateway, sending: Callable[..., Future[httpx.Response]]
) -> None:
    response, own = sending("/coders"), sending("/risky", id='"own"')
    id_, own_id = waiting(gateway, "coders")["id"], waiting(gateway, "risky")["id"]
    for client in (approver(gateway, token=""), approver(gateway, token="wrong-horse-battery-staple")):
        with client:
            assert client.post(f"/approvals/{id_}", json={"decision": "approve"}).status_code == 401
    told = answer(gateway, id_, "approve")
    assert (told.status_code, told.json()["why"]) == (403, "its rule names other approvers")
    told = answer(gateway, own_id, "approve", "planner")
    assert (told.status_code, told.json()["why"]) == (403, "nobody answers what they ask themselves")
    for body in ({"decision": "maybe"}, {}, {"decision": "approve", "by": "me"}, {"decision": "approve", "x": 1}):
        with approver(gateway) as client:
            assert client.post(f"/approvals/{id_}", json=body).status_code == 400
            assert client.post(f"/approvals/{id_}", content=b"decision=approve").status_code == 415
    assert not response.done()
    assert not own.done()
    assert answer(gateway, id_, "approve", "coder").status_code == 200
    assert answer(gateway, own_id, "approve", "coder").status_code == 200
    assert (response.result(10).status_code, own.result(10).status_code) == (200, 200)


def test_an_approval_may_count_for_the_conversation(
    gateway: RunningGateway, sending: Callable[..., Future[httpx.Response]]
) -> None:
    response = sending("/risky", id='"c1"')
    alone = waiting(gateway, "risky")["id"]
    assert answer(gateway, alone, "approve", scope="conversation").status_code == 409
    assert answer(gateway, alone, "approve").status_code == 200
    assert response.result(10).status_code == 200
    response = sending("/risky", id='"c2"', conversation='"long"')
    id_ = waiting(gateway, "risky")["id"]
    assert answer(gateway, id_, "approve", "coder", scope="conversation").status_code == 200
    assert response.result(10).status_code == 200
    assert send(gateway, "/risky", id='"c3"', conversation='"long"').status_code == 200
    told = f"test/risky approved by {AGENTS}/coder for the conversation, id {id_}"
    assert gateway.handoff(flight_id="c3")["approval"] == told
    others = sending("/risky", "coder", conversation='"long"'), sending("/risky", conversation='"other"')
    for _ in others:
        assert answer(gateway, waiting(gateway, "risky")["id"], "deny").status_code == 200
    assert {other.result(10).status_code for other in others} == {403}


def test_each_rule_that_asks_is_answered(
    gateway: RunningGateway, sending: Callable[..., Future[httpx.Response]]
) -> None:
    response = sending("/first", id='"both"')
    assert answer(gateway, waiting(gateway, "first")["id"], "approve").status_code == 200
    second = waiting(gateway, "second")["id"]
    assert not response.done()
    assert answer(gateway, second, "approve").status_code == 200
    assert response.result(10).status_code == 200
    assert gateway.handoff(flight_id="both")["approval"].count("approved by") == 2


def test_an_operator_answers_on_the_command_line(
    gateway: RunningGateway, sending: Callable[..., Future[httpx.Response]]
) -> None:
    where = ["--admin", f"https://127.0.0.1:{gateway.admin_port}", "--cacert", str(gateway.certs / "ca.pem")]
    where += ["--token-file", str(gateway.folder / "admin-token")]

    def command(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["approvals", *words, *where])
        return result.exit_code, result.output

    assert command("list") == (0, "nothing waits for an approval\n")
    response = sending("/risky", id='"cli"', conversation='"talk"')
    id_ = waiting(gateway, "risky")["id"]
    status, told = command("list")
    assert status == 0
    for text in (id_, f"{AGENTS}/planner asks executor-1 for code.execute, by test/risky", "packet cli", "costs money"):
        assert text in told
    assert command("deny", id_, "--why", "no") == (0, f"{id_}: deny, by token from 127.0.0.1\n")
    assert response.result(10).json()["detail"].endswith("denied: no")
    status, told = command("approve", id_)
    assert status == 1
    assert "404: nothing of this id waits" in told


def test_a_retry_reaches_no_agent_that_somebody_would_have_to_approve(gateway: RunningGateway) -> None:
    reached = set()
    for number in range(8):
        response = send(gateway, "/run", capability="code.retry", conversation=f'"r{number}"')
        reached.add(refusal(response))
    assert reached <= {(503, "no-eligible-agent"), (504, "approval-timeout")}
    assert (503, "no-eligible-agent") in reached, "one that fails at `gone` is not sent to `prod`"


def test_a_packet_that_waits_is_refused_once_policy_denies_it(
    gateway: RunningGateway, agent: RawAgent, sending: Callable[..., Future[httpx.Response]]
) -> None:
    before = len(agent.received)
    response = sending("/risky", id='"v1"')
    id_ = waiting(gateway, "risky")["id"]
    write_policy(gateway.folder, "stop", policy(rule("stop", "deny"), name="stop"))
    try:
        assert refusal(response.result(10)) == (403, "denied-by-policy")
        assert "withdrawn" in gateway.handoff(flight_id="v1", outcome="revoked")["approval"]
        assert answer(gateway, id_, "approve").status_code == 404
        assert len(agent.received) == before
    finally:
        (gateway.folder / "policies" / "stop.yaml").unlink()
        eventually(lambda: send(gateway, "/run").status_code == 200)


# -- the webhook --------------------------------------------------------------------------------------------

SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes, ok").decode()
ANSWERS: dict[str, tuple[int, bytes]] = {
    "yes": (200, b'{"decision": "approve", "by": "ann"}'),
    "no": (200, b'{"decision": "deny", "why": "too dear"}'),
    "later": (202, b""),
    "broken": (500, b'{"decision": "approve"}'),
    "garbled": (200, b'{"decision": "sure"}'),
}


class Hook(ThreadingHTTPServer):
    """Answers by the task of the packet that it is told of; keeps what was well signed."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), HookRequest)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class HookRequest(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        at, id_ = self.headers["webhook-timestamp"], self.headers["webhook-id"]
        key = base64.b64decode(SECRET.removeprefix("whsec_"))
        signed = hmac.digest(key, f"{id_}.{at}.".encode() + body, hashlib.sha256)
        assert self.headers["webhook-signature"] == f"v1,{base64.b64encode(signed).decode()}"
        assert abs(time.time() - int(at)) < 60
        told = json.loads(body)
        assert (told["type"], told["approval"]["id"]) == ("approval.asked", id_)
        self.server.told.append(told["approval"])
        status, answer = ANSWERS[told["approval"]["task"]]
        self.send_response(status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_webhook_answers_at_once_or_later_and_approves_nothing_when_it_fails(
    certs: Path, tmp_path: Path, agent: RawAgent
) -> None:
    hook = Hook()
    (tmp_path / "secret").write_text(SECRET + "\n")
    (tmp_path / "gateway").mkdir()
    gateway = launch(
        tmp_path / "gateway",
        certs,
        [member(agent.port)],
        policy=policy(asks("risky", timeout="30s"), asks("brief", timeout="300ms")),
        admin_spec=with_token(tmp_path),
        approvals={"webhook": {"url": f"http://127.0.0.1:{hook.server_port}/ask", "secretFile": "../secret"}},
        limits={"responseTimeout": "1s", "bodyTimeout": "1s", "drainTimeout": "300ms"},
    )
    try:
        before = len(agent.received)
        assert send(gateway, "/risky", id='"h1"', task='"yes"').status_code == 200
        assert "approved by webhook (ann)" in gateway.handoff(flight_id="h1")["approval"]
        assert len(agent.received) == before + 1
        refused = send(gateway, "/risky", task='"no"')
        assert refusal(refused) == (403, "approval-denied")
        assert "too dear" in refused.json()["detail"]
        with ThreadPoolExecutor() as pool:
            later = pool.submit(send, gateway, "/risky", task='"later"')
            id_ = waiting(gateway, "risky")["id"]
            for failing in ("broken", "garbled"):
                assert refusal(send(gateway, "/brief", task=f'"{failing}"')) == (504, "approval-timeout")
            port = hook.server_port
            hook.shutdown()
            hook.server_close()
            assert refusal(send(gateway, "/brief", task='"yes"')) == (504, "approval-timeout")
            # The longest clock of a packet that does not wait for an approver is over by now.
            eventually(lambda: time.time() > when(hook.told, "later") + 2.1, 5)
            assert not later.done()
            assert answer(gateway, id_, "approve").status_code == 200
            assert later.result(10).status_code == 200
            assert len(agent.received) == before + 2
            with approver(gateway) as client:
                metrics = client.get("/metrics")
            for outcome, count in (("answered", 2), ("taken", 1), ("failed", 3)):
                assert f'phoenixflight_approval_webhook_total{{outcome="{outcome}"}} {count}.0' in metrics.text
            assert "the approval webhook was not asked" in gateway.log()
            assert str(port) not in json.dumps(hook.told)
            last = pool.submit(send, gateway, "/risky", task='"yes"')
            waiting(gateway, "risky")
            gateway.stop()
            assert refusal(last.result(10)) == (503, "draining")
    finally:
        gateway.stop()


def when(told: list[dict[str, Any]], task: str) -> float:
    """Seconds since the epoch at which the packet of `task` began to wait."""
    (found,) = [each["time"] for each in told if each["task"] == task]
    return datetime.fromisoformat(found).timestamp()
