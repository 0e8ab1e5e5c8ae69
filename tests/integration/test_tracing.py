"""Collectors over HTTP and gRPC get each handoff's spans; traffic does not notice whether they do."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.conformance.test_http1 import OK, answer_each
from tests.conftest import CAPABILITY, RawAgent, RunningGateway, StartGateway, eventually, free_port, member
from tests.telemetry.collectors import COLLECTORS, Collector, attributes, over_http

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with over_http() as made:
        yield made


def telemetry(collector: Collector, **tracing: object) -> dict[str, object]:
    return {"accessLog": "access.log", "tracing": {"otlpEndpoint": collector.url, "sampleRatio": 0, **tracing}}


def fields(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines)


def answer_as(status: bytes) -> Callable[[RawAgent, socket.socket], None]:
    def serve(agent: RawAgent, connection: socket.socket) -> None:
        while True:
            agent.read_head(connection)
            connection.sendall(b"HTTP/1.1 %s\r\ncontent-length: 0\r\nretry-after: 0\r\n\r\n" % status)

    return serve


def calling_on(gateway: Callable[[], RunningGateway], capability: str, own: str) -> Callable[..., None]:
    """An agent that has part of its work done by another, in a span `own` of the trace that it was given."""

    def serve(agent: RawAgent, connection: socket.socket) -> None:
        came = fields(agent.read_head(connection))
        _, trace, _, flags = came["traceparent"].split("-")
        onward = {
            "flight-capability": capability,
            "flight-parent": came["flight-id"],
            "flight-conversation": '"c-1"',
            "traceparent": f"00-{trace}-{own}-{flags}",
        }
        answer = httpx.post(f"{gateway().plain_url}/work", headers=onward, timeout=10, trust_env=False)
        assert answer.status_code == 200
        connection.sendall(OK)

    return serve


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_workflow_of_three_hops_is_one_trace(raw_agent, start_gateway: StartGateway, protocol: str) -> None:
    started: list[RunningGateway] = []
    planner = raw_agent(calling_on(lambda: started[0], "code.write", "1111111111111111"))
    coder = raw_agent(calling_on(lambda: started[0], "code.execute", "2222222222222222"))
    executor = raw_agent(answer_each)
    members = [
        member(planner.port, "planner-1", capabilities=["plan"]),
        member(coder.port, "coder-1", capabilities=["code.write"]),
        member(executor.port, "executor-1"),
    ]
    with COLLECTORS[protocol]() as collector:
        started.append(start_gateway(members, telemetry=telemetry(collector, protocol=protocol)))
        with started[0].client(http2=True) as client:
            sent = {"flight-capability": "plan", "flight-id": '"root"', **SAMPLED}
            assert client.post("/run?secret=1", headers=sent, timeout=30).status_code == 200
        spans = eventually(lambda: collector.spans if len(collector.spans) >= 9 else None)
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert len({span.span_id for span in spans}) == len(spans) == 9
    first, second, third = sorted(collector.handoffs(), key=lambda span: span.start_time_unix_nano)
    assert [each.parent_span_id.hex() for each in (first, second, third)] == [PARENT, "1" * 16, "2" * 16]
    for handoff, agent, name in (
        (first, planner, "planner-1"),
        (second, coder, "coder-1"),
        (third, executor, "executor-1"),
    ):
        decision, attempt = sorted(collector.below(handoff), key=lambda span: span.name, reverse=True)
        assert (decision.name, attempt.name) == ("decision", "attempt")
        assert (handoff.kind, decision.kind, attempt.kind) == (
            Span.SPAN_KIND_SERVER,
            Span.SPAN_KIND_INTERNAL,
            Span.SPAN_KIND_CLIENT,
        )
        # The agent's own spans are children of the attempt at it.
        assert fields(agent.received[0])["traceparent"] == f"00-{TRACE}-{attempt.span_id.hex()}-01"
        assert handoff.start_time_unix_nano <= decision.start_time_unix_nano <= decision.end_time_unix_nano
        assert decision.end_time_unix_nano <= attempt.end_time_unix_nano <= handoff.end_time_unix_nano
        assert attributes(decision)["flight.eligible"] == 1
        assert attributes(attempt)["gen_ai.agent.name"] == name
        assert [event.name for event in attempt.events] == ["sent", "answered"]
    assert not first.links
    for child, parent in ((second, first), (third, second)):
        (link,) = child.links
        assert (link.trace_id, link.span_id) == (parent.trace_id, parent.span_id)
        assert attributes(link)["flight.id"] == attributes(parent)["flight.id"]
    _follows_the_conventions(started[0], first, second)
    assert b"secret" not in b"".join(span.SerializeToString() for span in spans)


def _follows_the_conventions(gateway: RunningGateway, first: Span, second: Span) -> None:
    told = attributes(first)
    wanted = {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "url.path": "/run",
        "url.scheme": "https",
        "server.address": "127.0.0.1",
        "server.port": gateway.tls_port,
        "network.protocol.name": "http",
        "network.protocol.version": "2",
        "flight.from": "spiffe://mesh.local/ns/agents/sa/planner",
        "flight.policy": "test",
        "flight.outcome": "completed",
    }
    assert wanted.items() <= told.items()
    assert attributes(second)["gen_ai.conversation.id"] == "c-1"


def test_refused_and_failed_handoffs_are_told_of_though_none_is_sampled(
    raw_agent, start_gateway: StartGateway, collector: Collector
) -> None:
    members = [
        member(raw_agent(answer_each).port),
        member(free_port(), "dead-1", capabilities=["code.write"]),
    ]
    gateway = start_gateway(members, telemetry=telemetry(collector))
    with gateway.client() as client, gateway.client("mallory") as mallory:
        assert client.post("/run", headers=CAPABILITY).status_code == 200
        unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
        assert mallory.post("/run", headers={**CAPABILITY, **unsampled}).status_code == 403
        assert client.post("/run", headers={"flight-capability": "code.write"}).status_code == 503
    eventually(lambda: len(collector.handoffs()) == 2)
    refused, failed = sorted(collector.handoffs(), key=lambda span: span.start_time_unix_nano)
    assert refused.trace_id.hex() == TRACE
    assert refused.parent_span_id.hex() == PARENT
    assert attributes(refused)["flight.reason"] == "denied-by-policy"
    assert refused.status.code == Status.STATUS_CODE_UNSET
    assert [each.name for each in collector.below(refused)] == ["decision"]
    assert attributes(collector.below(refused)[0])["flight.decision"] == "refuse"
    logged = gateway.handoff(agent="dead-1")
    assert failed.trace_id.hex() == logged["trace_id"]
    assert failed.parent_span_id == b""
    assert failed.status.code == Status.STATUS_CODE_ERROR
    assert attributes(failed)["error.type"] == logged["reason"]
    eventually(lambda: "phoenixflight_spans_exported_total 5.0" in gateway.admin("/metrics").text)


def test_each_attempt_has_a_span_which_is_the_parent_of_its_agent_s(
    raw_agent, start_gateway: StartGateway, collector: Collector
) -> None:
    busy, fit = raw_agent(answer_as(b"503 Busy")), raw_agent(answer_each)
    gateway = start_gateway([member(busy.port, "busy-1"), member(fit.port)], telemetry=telemetry(collector))
    with gateway.client() as client:
        for number in range(40):
            sent = {**CAPABILITY, "flight-id": f'"p-{number}"', **SAMPLED}
            assert client.get("/run", headers=sent).status_code == 200
            if busy.received:
                break
    handoff = gateway.handoff(attempts=2)
    span = eventually(lambda: [each for each in collector.handoffs() if attributes(each).get("flight.attempts") == 2])[
        0
    ]
    first, second = sorted(
        (each for each in collector.below(span) if each.name == "attempt"), key=lambda each: each.start_time_unix_nano
    )
    assert f"00-{TRACE}-{first.span_id.hex()}-01".encode() in busy.received[-1]
    assert f"00-{TRACE}-{second.span_id.hex()}-01".encode() in fit.received[-1]
    assert attributes(first)["error.type"] == "answered" == handoff["failed"][0]["cause"]
    assert first.status.code == Status.STATUS_CODE_ERROR
    assert attributes(second)["http.request.resend_count"] == 1
    assert attributes(second)["http.response.status_code"] == 200
    assert second.start_time_unix_nano >= first.end_time_unix_nano


def test_slow_answers_are_told_of_and_a_flood_of_refusals_is_bounded(
    raw_agent, start_gateway: StartGateway, collector: Collector
) -> None:
    def slowly(agent: RawAgent, connection: socket.socket) -> None:
        agent.read_head(connection)
        threading.Event().wait(0.15)
        connection.sendall(OK)

    gateway = start_gateway(
        [member(raw_agent(slowly).port)], telemetry=telemetry(collector, slow="100ms", keptPerSecond=3)
    )
    with gateway.client() as client, gateway.client("mallory") as mallory:
        begun = time.monotonic()
        for _ in range(60):
            assert mallory.post("/run", headers=CAPABILITY).status_code == 403
        took = time.monotonic() - begun
        assert client.post("/run", headers=CAPABILITY).status_code == 200
    eventually(lambda: any(attributes(span)["flight.outcome"] == "completed" for span in collector.handoffs()))
    refused = [span for span in collector.handoffs() if attributes(span)["flight.outcome"] == "refused"]
    assert 3 <= len(refused) <= 3 + 3 * (took + 1)
    dropped = f'phoenixflight_spans_dropped_total{{reason="rate"}} {2 * (60 - len(refused))}.0'
    assert dropped in gateway.admin("/metrics").text


@pytest.mark.parametrize("trouble", ["dead", "deaf"])
def test_a_collector_in_trouble_never_touches_traffic(raw_agent, start_gateway: StartGateway, trouble: str) -> None:
    silent = raw_agent(lambda agent, connection: threading.Event().wait(60))
    port = free_port() if trouble == "dead" else silent.port
    tracing = {"otlpEndpoint": f"http://127.0.0.1:{port}", "sampleRatio": 1, "timeout": "200ms"}
    gateway = start_gateway(
        [member(raw_agent(answer_each).port)], telemetry={"accessLog": "access.log", "tracing": tracing}
    )
    with gateway.client() as client:
        for _ in range(50):
            assert client.post("/run", headers=CAPABILITY).status_code == 200
    lines = eventually(lambda: gateway.handoffs() if len(gateway.handoffs()) == 50 else None)
    assert {line["outcome"] for line in lines} == {"completed"}
    assert sorted(line["gateway_ms"] for line in lines)[25] < 50
    eventually(lambda: "the collector does not take spans" in gateway.log())
    begun = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() - begun < 10
    assert gateway.log().count("the collector does not take spans") == 1
    assert "Traceback" not in gateway.log()
