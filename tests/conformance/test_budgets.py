"""Budgets through real sockets: what a rule grants is reserved, read along the answer, and ends what spends more."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from tests.conformance.trust import policy, refusal, requests_on, rule
from tests.conftest import CAPABILITY, RawAgent, RunningGateway, StartGateway, launch, member
from tests.redis_server import RedisServer
from tests.waiting import eventually

GRANT = {"capabilities": ["*"], "budget": {"tokens": 300}}
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
START = {"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 25, "output_tokens": 1}}}


def event(document: Mapping[str, object]) -> bytes:
    text = f"event: {document['type']}\ndata: {json.dumps(document)}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(text), text)


def delta(tokens: int) -> bytes:
    return event({"type": "message_delta", "delta": {}, "usage": {"output_tokens": tokens}})


class Model:
    """An agent whose answers are what a test says."""

    def __init__(self) -> None:
        self.answer = b""

    def serve(self, agent: RawAgent, connection: socket.socket) -> None:
        for _ in requests_on(connection):
            connection.sendall(self.answer)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


@pytest.fixture(scope="module")
def agent(model: Model) -> Iterator[RawAgent]:
    agent = RawAgent(model.serve)
    yield agent
    agent.close()


@pytest.fixture(scope="module")
def gateway(agent: RawAgent, tmp_path_factory: pytest.TempPathFactory, certs: Path) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("budgets")
    gateway = launch(folder, certs, [member(agent.port)], policy=policy(rule(grant=GRANT)))
    yield gateway
    gateway.stop()


def ask(gateway: RunningGateway, **fields: str) -> httpx.Response:
    with gateway.client() as client:
        headers = {**CAPABILITY, **{name.replace("_", "-"): value for name, value in fields.items()}}
        return client.post("/run", headers=headers, content=b"job")


def counted(gateway: RunningGateway, name: str) -> float:
    lines = gateway.admin("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_what_a_stream_spends_is_counted_and_the_rest_refunded(model: Model, gateway: RunningGateway) -> None:
    model.answer = SSE + event(START) + delta(15) + event({"type": "message_stop"}) + b"0\r\n\r\n"
    answer = ask(gateway, flight_conversation='"c-1"')
    assert answer.text.endswith('data: {"type": "message_stop"}\n\n')
    logged = gateway.handoff(conversation="c-1")
    assert (logged["reserved"], logged["usage"]) == ("tokens=300", "tokens=40")
    names = ("reserved", "spent", "refunded")
    found = [counted(gateway, f'phoenixflight_budget_{name}_total{{unit="tokens"}}') for name in names]
    assert found == [300, 40, 260]
    (seen,) = gateway.admin("/conversations/c-1").json()["handoffs"]
    assert (seen["reserved"], seen["spent"]) == ({"tokens": 300}, {"tokens": 40})


def test_a_stream_that_spends_more_than_was_reserved_is_ended_in_its_own_format(
    model: Model, gateway: RunningGateway
) -> None:
    model.answer = SSE + event(START) + delta(100) + delta(276)
    answer = ask(gateway)
    *_, over, last, rest = answer.text.split("\n\n")
    assert '"output_tokens": 276' in over  # it was passed on before it was read
    assert (last.partition("\n")[0], rest) == ("event: error", "")
    assert "urn:phoenixflight:budget-exhausted" in last
    assert "301 tokens are spent, and 300 were reserved" in last
    logged = gateway.handoff(reason="budget-exhausted")
    assert (logged["outcome"], logged["usage"]) == ("failed", "tokens=301")


def test_a_packet_may_spend_less_than_its_rule_allows_and_never_nothing(model: Model, gateway: RunningGateway) -> None:
    model.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nflight-usage: tokens=7\r\n\r\n"
    assert ask(gateway, flight_budget="tokens=50, hops=3, cost=2", flight_task='"t"').status_code == 200
    logged = gateway.handoff(task="t")
    assert (logged["reserved"], logged["usage"]) == ("tokens=50, cost=2", "tokens=7")
    refused = ask(gateway, flight_budget="tokens=0")
    assert refusal(refused) == (429, "budget-exhausted")
    assert "tokens" in refused.json()["detail"]


def test_without_redis_nothing_is_begun_that_has_a_budget_unless_so_much_may_be(
    model: Model, agent: RawAgent, start_gateway: StartGateway, redis: RedisServer
) -> None:
    model.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nflight-usage: tokens=60\r\n\r\n"
    more = {"redis": {"url": redis.url}, "policy": policy(rule(grant=GRANT))}
    strict = start_gateway([member(agent.port)], **more)
    lax = start_gateway([member(agent.port)], budgets={"withoutRedis": {"tokens": 100}}, **more)
    assert [ask(each).status_code for each in (strict, lax)] == [200, 200]
    redis.stop()
    refused = ask(strict)
    assert refusal(refused) == (503, "overloaded")
    assert refused.headers["retry-after"] == "1"
    assert [ask(lax).status_code for _ in range(3)] == [200, 200, 503]
    redis.start()
    started = time.monotonic()
    eventually(lambda: [ask(each).status_code for each in (strict, lax)] == [200, 200])
    assert time.monotonic() - started < 10
