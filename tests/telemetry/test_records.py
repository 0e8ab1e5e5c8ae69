"""What a handoff leaves behind: its log line, its numbers."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from tests.conformance.test_http1 import OK, answer_each
from tests.conftest import CAPABILITY, RawAgent, StartGateway, eventually, member


@pytest.fixture
def agent(raw_agent) -> RawAgent:
    return raw_agent(answer_each)


def answer_when_whole(agent: RawAgent, connection: socket.socket) -> None:
    data = agent.read_head(connection)
    while not data.endswith(b"secret"):
        data += connection.recv(65536)
    connection.sendall(OK.replace(b"\r\n", b"\r\nflight-usage: tokens=7\r\n", 1))


def test_the_access_log_tells_who_what_where_by_which_rule_and_no_secret(
    raw_agent: Callable[..., RawAgent], start_gateway: StartGateway
) -> None:
    gateway = start_gateway([member(raw_agent(answer_when_whole).port)])
    with gateway.client(http2=True) as client:
        client.post(
            "/run?token=secret",
            headers={
                **CAPABILITY,
                "flight-id": '"id-1"',
                "flight-conversation": '"c-1"',
                "flight-task": '"t-1"',
                "flight-parent": '"p-1"',
                "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                "authorization": "Bearer secret",
            },
            content=b"secret",
        )
    line = gateway.handoff(flight_id="id-1")
    wanted = {
        "outcome": "completed",
        "flight_id": "id-1",
        "conversation": "c-1",
        "task": "t-1",
        "parent": "p-1",
        "from": "spiffe://mesh.local/ns/agents/sa/planner",
        "capability": "code.execute",
        "agent": "executor-1",
        "policy": "test",
        "rule": "agents",
        "revision": gateway.revision(),
        "listener": "mesh",
        "protocol": "h2",
        "method": "POST",
        "path": "/run",
        "status": 200,
        "attempts": 1,
        "usage": "tokens=7",
        "bytes_in": 6,
        "bytes_out": 2,
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
    }
    moments = ["gateway_ms", "asked_ms", "sent_ms", "answered_ms", "duration_ms"]
    assert line.keys() - wanted.keys() == {"time", "authority", "waited_ms", *moments}
    assert wanted.items() <= line.items()
    assert line["authority"] == gateway.url.removeprefix("https://")
    assert 0 <= line["waited_ms"] < 1000
    assert line["gateway_ms"] > 0
    assert sorted(moments, key=line.__getitem__) == moments
    assert "secret" not in (gateway.folder / "access.log").read_text()


def test_metrics_count_handoffs_refusals_and_connections(agent: RawAgent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(agent.port)])
    with gateway.client() as client, gateway.client("mallory") as mallory:
        for _ in range(3):
            client.post("/run", headers=CAPABILITY)
        mallory.post("/run", headers=CAPABILITY)
        client.post("/run", headers={"flight-capability": "made.up"})
        text = gateway.admin("/metrics").text
        labels = 'agent="executor-1",capability="code.execute",outcome="completed",policy="test"'
        assert f"phoenixflight_handoffs_total{{{labels}}} 3.0" in text
        assert 'phoenixflight_refusals_total{policy="test",reason="denied-by-policy"} 1.0' in text
        assert 'phoenixflight_connections{listener="mesh"} 2.0' in text
        assert 'phoenixflight_members{state="ready"} 1.0' in text
        assert "made.up" not in text
        assert 'phoenixflight_handoff_duration_seconds_count{capability="code.execute"} 3.0' in text
    eventually(lambda: 'phoenixflight_connections{listener="mesh"} 0.0' in gateway.admin("/metrics").text)


def test_an_unsampled_trace_context_is_passed_on_as_it_came(agent: RawAgent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(agent.port)])
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    with gateway.client() as client:
        client.post("/run", headers={**CAPABILITY, "traceparent": parent, "tracestate": "a=b"})
    assert f"traceparent: {parent}".encode() in agent.received[0]
    assert b"tracestate: a=b" in agent.received[0]
    assert gateway.handoff()["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
