"""OpenTelemetry collectors: real servers that keep what they are sent, over HTTP and over gRPC."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import (
    LogsServiceServicer,
    add_LogsServiceServicer_to_server,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span


def attributes(of: Span | LogRecord | Span.Link) -> dict[str, object]:
    """By name, as Python has them."""
    return {each.key: _value(each) for each in of.attributes}


def _value(pair: KeyValue) -> object:
    kind = pair.value.WhichOneof("value")
    assert kind is not None
    value = getattr(pair.value, kind)
    return [each.string_value for each in value.values] if kind == "array_value" else value


class Collector:
    """What has come."""

    url: str

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.records: list[LogRecord] = []
        self.resources: list[dict[str, object]] = []
        self.headers: list[dict[str, str]] = []
        self.connections: list[socket.socket] = []
        self.statuses: list[int] = []
        """What to answer the next exports with, over HTTP; then 200."""
        self.retry_after = ""
        """Said with those that are not 200."""
        self.endless = False
        """Whether answers over HTTP have no end."""
        self.rejects = 0
        """Spans of each export that it says it does not take."""

    def traces(self, request: ExportTraceServiceRequest) -> ExportTraceServiceResponse:
        for each in request.resource_spans:
            self.resources.append({pair.key: _value(pair) for pair in each.resource.attributes})
            self.spans += [span for scope in each.scope_spans for span in scope.spans]
        answer = ExportTraceServiceResponse()
        answer.partial_success.rejected_spans = self.rejects
        return answer

    def logs(self, request: ExportLogsServiceRequest) -> ExportLogsServiceResponse:
        for each in request.resource_logs:
            self.records += [record for scope in each.scope_logs for record in scope.log_records]
        return ExportLogsServiceResponse()

    def hang_up(self) -> None:
        """Close the connections over HTTP that are kept, once what was asked on them is answered."""
        for each in self.connections:
            each.shutdown(socket.SHUT_RDWR)

    def handoffs(self) -> list[Span]:
        return [span for span in self.spans if span.name == "handoff"]

    def below(self, parent: Span) -> list[Span]:
        return [span for span in self.spans if span.parent_span_id == parent.span_id]


@contextmanager
def over_http(tls: tuple[Path, Path] | None = None) -> Iterator[Collector]:
    """A collector; `tls` is its certificate and key."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            collector.connections.append(self.connection)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.headers.append(dict(self.headers.items()))
            status = collector.statuses.pop(0) if collector.statuses else 200
            answer = b""
            if status == 200 and self.path == "/v1/traces":
                answer = collector.traces(ExportTraceServiceRequest.FromString(body)).SerializeToString()
            elif status == 200 and self.path == "/v1/logs":
                answer = collector.logs(ExportLogsServiceRequest.FromString(body)).SerializeToString()
            elif status == 200:
                status = 404
            self.send_response(status)
            if status != 200 and collector.retry_after:
                self.send_header("retry-after", collector.retry_after)
            self.send_header("content-length", str(10**12 if collector.endless else len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            while collector.endless:
                try:
                    self.wfile.write(bytes(65536))
                except OSError:
                    self.close_connection = True
                    return

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    collector.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def over_grpc(tls: tuple[Path, Path] | None = None) -> Iterator[Collector]:
    """The same over gRPC."""
    collector = Collector()

    class Traces(TraceServiceServicer):
        def Export(self, request: ExportTraceServiceRequest, context: grpc.ServicerContext):  # noqa: N802 - gRPC's name for it
            collector.headers.append({str(name): str(value) for name, value in context.invocation_metadata()})
            return collector.traces(request)

    class Logs(LogsServiceServicer):
        def Export(self, request: ExportLogsServiceRequest, context: grpc.ServicerContext):  # noqa: N802 - gRPC's name for it
            return collector.logs(request)

    server = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(Traces(), server)
    add_LogsServiceServicer_to_server(Logs(), server)
    if tls is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        certificate, key = tls
        credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
        port = server.add_secure_port("127.0.0.1:0", credentials)
    collector.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(0).wait()


COLLECTORS = {"http": over_http, "grpc": over_grpc}
