"""An OTLP collector gets the handoff's span."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.conformance.test_http1 import answer_each
from tests.conftest import CAPABILITY, StartGateway, eventually, free_port, member


class Collector:
    """Takes OTLP/HTTP traces."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    import gzip

                    body = gzip.decompress(body)
                request = ExportTraceServiceRequest.FromString(body)
                collector.spans += [
                    span
                    for resource in request.resource_spans
                    for scope in resource.scope_spans
                    for span in scope.spans
                ]
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1/traces"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.server.shutdown()
    made.thread.join()
    made.server.server_close()


def test_a_handoff_s_span_stands_between_the_caller_s_and_the_agent_s(
    raw_agent, start_gateway: StartGateway, collector: Collector
) -> None:
    agent = raw_agent(answer_each)
    gateway = start_gateway(
        [member(agent.port)],
        telemetry={"accessLog": "access.log", "tracing": {"otlpEndpoint": collector.url, "sampleRatio": 0}},
    )
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with gateway.client(http2=True) as client:
        client.post("/run", headers={**CAPABILITY, "traceparent": f"00-{trace}-{parent}-01"})
    (span,) = eventually(lambda: collector.spans)
    assert span.trace_id.hex() == trace
    assert span.parent_span_id.hex() == parent
    attributes = {each.key: each.value for each in span.attributes}
    assert attributes["flight.agent"].string_value == "executor-1"
    assert attributes["http.response.status_code"].int_value == 200
    assert f"traceparent: 00-{trace}-{span.span_id.hex()}-01".encode() in agent.received[0]


def test_a_dead_collector_never_touches_traffic(raw_agent, start_gateway: StartGateway) -> None:
    gateway = start_gateway(
        [member(raw_agent(answer_each).port)],
        telemetry={
            "accessLog": "access.log",
            "tracing": {"otlpEndpoint": f"http://127.0.0.1:{free_port()}/v1/traces", "sampleRatio": 1},
        },
    )
    with gateway.client() as client:
        assert {client.post("/run", headers=CAPABILITY).status_code for _ in range(20)} == {200}
