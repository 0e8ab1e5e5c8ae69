"""What is exported comes whole; a collector that is not there costs no more than what was to be told."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from gateway.telemetry.export import MAX_WAITING, Export
from gateway.telemetry.otlp import authorities
from gateway.telemetry.over_grpc import spans_over_grpc
from gateway.telemetry.over_http import SpansOverHttp
from gateway.telemetry.spec import OtlpSpec
from gateway.telemetry.ways import UnsentError, Way
from tests.telemetry.collectors import COLLECTORS, Collector, over_grpc, over_http
from tests.waiting import eventually, free_port

RESOURCE = Resource({})


def named(name: str) -> ReadableSpan:
    return ReadableSpan(name, SpanContext(1, 1, False), resource=RESOURCE, start_time=1, end_time=2)


class Names:
    """Spans with nothing but names."""

    name = "spans"
    max_batch = 256

    def __init__(self, way: Way[Sequence[ReadableSpan]]) -> None:
        self.shutdown = way.shutdown
        self._way = way

    def export(self, batch: Sequence[str]) -> int:
        return self._way.send([named(name) for name in batch])

    def count(self, item: str) -> int:
        return 1


def way_to(url: str, protocol: str, **more: object) -> Way[Sequence[ReadableSpan]]:
    spec = OtlpSpec.model_validate({"otlpEndpoint": url, "protocol": protocol, "timeout": "5s", **more})
    return SpansOverHttp(spec) if protocol == "http" else spans_over_grpc(spec, authorities(spec))


def exporting(url: str, protocol: str = "http", **more: object) -> Export[str]:
    return Export(Names(way_to(url, protocol, **more)), interval_s=0.02)


@pytest.fixture(params=["http", "grpc"])
def collector(request: pytest.FixtureRequest) -> Iterator[Collector]:
    with COLLECTORS[request.param]() as made:
        made.protocol = request.param
        yield made


def test_all_that_is_added_comes_with_the_headers_that_were_set(collector: Collector) -> None:
    export = exporting(collector.url, collector.protocol, headers={"authorization": "Bearer t"})
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
    export = exporting(collector.url, collector.protocol)
    for name in "abc":
        export.add(name)
    export.close()
    assert (export.exported, export.dropped["collector"]) == (1, 2)


@pytest.mark.parametrize("over", [over_http, over_grpc])
def test_a_collector_shows_a_certificate_that_the_ca_file_vouches_for(over, certs: Path, tmp_path: Path) -> None:
    # The gateway's own certificate is one for 127.0.0.1.
    with over((certs / "gateway.pem", certs / "gateway-key.pem")) as collector:
        protocol = "http" if over is over_http else "grpc"
        trusted = way_to(collector.url, protocol, caFile=str(certs / "ca.pem"))
        stranger = way_to(collector.url, protocol, caFile=str(certs / "connect-ca.pem"), timeout="500ms")
        assert trusted.send([named("a")]) == 0
        with pytest.raises(UnsentError):
            stranger.send([named("b")])
        trusted.shutdown()
        stranger.shutdown()
        assert [span.name for span in collector.spans] == ["a"]


def test_a_busy_collector_is_asked_again_and_one_that_says_no_is_not() -> None:
    with over_http() as collector:
        collector.statuses = [503, 429]
        collector.retry_after = "0.01"
        export = exporting(collector.url)
        export.add("a")
        eventually(lambda: export.exported == 1)
        collector.statuses = [400]
        export.add("b")
        eventually(lambda: export.dropped["collector"] == 1)
        collector.statuses = [302]
        export.add("c")
        eventually(lambda: export.dropped["collector"] == 2)
        export.add("d")
        eventually(lambda: export.exported == 2)
        export.close()
    assert [span.name for span in collector.spans] == ["a", "d"]


def test_a_kept_connection_that_the_collector_has_closed_loses_nothing() -> None:
    with over_http() as collector:
        way = way_to(collector.url, "http")
        way.send([named("a")])
        collector.hang_up()
        way.send([named("b")])
        way.shutdown()
    assert [span.name for span in collector.spans] == ["a", "b"]


def test_of_an_answer_without_end_only_the_beginning_is_read() -> None:
    with over_http() as collector:
        collector.endless = True
        way = way_to(collector.url, "http")
        assert way.send([named("a")]) == 0
        assert way.send([named("b")]) == 0
        way.shutdown()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_dead_collector_costs_the_spans_and_a_line_in_the_log(
    protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        export = exporting(f"http://127.0.0.1:{free_port()}", protocol, timeout="300ms")
        for round_ in range(1, 4):
            export.add("a")
            eventually(lambda wanted=round_: export.dropped["collector"] == wanted)
        export.close()
    assert export.exported == 0
    (told,) = caplog.records
    assert told.name == "gateway.telemetry.export"
    assert "refused" in told.getMessage().lower()


class Deaf:
    """Takes a connection, and never answers."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_deaf_collector_holds_up_neither_who_adds_nor_the_end(
    protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    deaf = Deaf()
    export = exporting(deaf.url, protocol, timeout="60s")
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
    assert not [each for each in caplog.records if each.exc_info]
