"""What is exported comes whole; a collector that is not there costs no more than what was to be told."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from gateway.telemetry import export as exports
from gateway.telemetry.export import MAX_WAITING, Export, Sender, UnsentError
from gateway.telemetry.otlp_grpc import GrpcSender
from gateway.telemetry.otlp_http import HttpSender
from gateway.telemetry.spans import Spans
from tests.conftest import client_context
from tests.telemetry.collectors import COLLECTORS, Collector, over_grpc, over_http
from tests.waiting import eventually, free_port


class Names(Spans):
    """Spans with nothing but names."""

    def __init__(self) -> None:
        pass

    def encode(self, batch: Sequence[str]) -> bytes:  # type: ignore[override]
        scope = ScopeSpans(spans=[Span(name=name) for name in batch])
        return ExportTraceServiceRequest(resource_spans=[ResourceSpans(scope_spans=[scope])]).SerializeToString()

    def count(self, item: str) -> int:  # type: ignore[override]
        return 1


def exporting(sender: Sender, timeout_s: float = 5.0) -> Export[str]:
    return Export(Names(), sender, timeout_s, interval_s=0.02)


@pytest.fixture(params=["http", "grpc"])
def collector(request: pytest.FixtureRequest) -> Iterator[Collector]:
    with COLLECTORS[request.param]() as made:
        made.protocol = request.param
        yield made


def sender_to(collector: Collector, headers: dict[str, str] | None = None) -> Sender:
    if collector.protocol == "http":
        return HttpSender(collector.url, Names.path, headers or {}, None)
    return GrpcSender(collector.url, Names.method, headers or {}, None)


def test_all_that_is_added_comes_with_the_headers_that_were_set(collector: Collector) -> None:
    export = exporting(sender_to(collector, {"authorization": "Bearer t"}))
    names = [f"span {number}" for number in range(600)]
    for name in names:
        export.add(name)
    export.close()
    assert [span.name for span in collector.spans] == names
    assert export.exported == 600
    assert set(export.dropped.values()) == {0}
    told = {name.lower(): value for name, value in collector.headers[0].items()}
    assert told["authorization"] == "Bearer t"


def test_what_the_collector_rejects_is_counted(collector: Collector) -> None:
    collector.rejects = 2
    export = exporting(sender_to(collector))
    for name in "abc":
        export.add(name)
    export.close()
    assert (export.exported, export.dropped["collector"]) == (1, 2)


@pytest.mark.parametrize("over", [over_http, over_grpc])
def test_a_collector_shows_a_certificate_that_the_ca_file_vouches_for(over, certs: Path, tmp_path: Path) -> None:
    # The gateway's own certificate is one for 127.0.0.1.
    with over((certs / "gateway.pem", certs / "gateway-key.pem")) as collector:
        trusted: Sender
        stranger: Sender
        if over is over_http:
            trusted = HttpSender(collector.url, Names.path, {}, client_context(certs, None))
            stranger = HttpSender(collector.url, Names.path, {}, ssl.create_default_context())
        else:
            trusted = GrpcSender(collector.url, Names.method, {}, (certs / "ca.pem").read_bytes())
            stranger = GrpcSender(collector.url, Names.method, {}, (certs / "connect-ca.pem").read_bytes())
        message = Names().encode(["a"])
        trusted.send(message, 5.0)
        with pytest.raises(UnsentError):
            stranger.send(message, 1.0)
        trusted.close()
        stranger.close()
        assert [span.name for span in collector.spans] == ["a"]


def test_a_busy_collector_is_asked_again_and_one_that_says_no_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "_FIRST_PAUSE_S", 0.01)
    with over_http() as collector:
        collector.statuses = [503, 429]
        export = exporting(HttpSender(collector.url, "/v1/traces", {}, None))
        export.add("a")
        eventually(lambda: export.exported == 1)
        collector.statuses = [400]
        export.add("b")
        eventually(lambda: export.dropped["collector"] == 1)
        export.add("c")
        eventually(lambda: export.exported == 2)
        export.close()
    assert [span.name for span in collector.spans] == ["a", "c"]


def test_a_kept_connection_that_the_collector_has_closed_loses_nothing() -> None:
    with over_http() as collector:
        sender = HttpSender(collector.url, "/v1/traces", {}, None)
        message = Names().encode(["a"])
        sender.send(message, 5.0)
        assert sender._connection is not None
        sender._connection.sock.shutdown(socket.SHUT_RDWR)
        sender.send(message, 5.0)
        sender.close()
    assert len(collector.spans) == 2


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_dead_collector_costs_the_spans_and_a_line_in_the_log(
    protocol: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(exports, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(exports, "_LAST_PAUSE_S", 0.002)
    url = f"http://127.0.0.1:{free_port()}"
    sender: Sender = (
        HttpSender(url, "/v1/traces", {}, None) if protocol == "http" else GrpcSender(url, Names.method, {}, None)
    )
    with caplog.at_level(logging.INFO, "gateway"):
        export = exporting(sender, 0.5)
        for round_ in range(1, 4):
            export.add("a")
            eventually(lambda wanted=round_: export.dropped["collector"] == wanted)
        export.close()
    assert export.exported == 0
    assert len([each for each in caplog.records if each.name == "gateway.telemetry.export"]) == 1


class Deaf:
    """Takes a connection, and never answers."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"


def test_a_deaf_collector_holds_up_neither_who_adds_nor_the_end() -> None:
    deaf = Deaf()
    export = exporting(HttpSender(deaf.url, "/v1/traces", {}, None), 60.0)
    export.add("first")
    eventually(lambda: not export._waiting)
    begun = time.monotonic()
    for _ in range(3 * MAX_WAITING):
        export.add("more")
    assert time.monotonic() - begun < 1
    assert export.dropped["queue"] == 2 * MAX_WAITING
    begun = time.monotonic()
    export.close(0.2)
    assert time.monotonic() - begun < 2
    deaf.socket.close()
    eventually(lambda: not any(each.name == "export of spans" for each in threading.enumerate()))
    assert export.exported == 0
    assert sum(export.dropped.values()) == 1 + 3 * MAX_WAITING
