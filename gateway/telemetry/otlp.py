"""From what is configured to what makes spans and lines, and sends them; and their numbers."""

from __future__ import annotations

import os
import ssl
from asyncio import AbstractEventLoop
from collections.abc import Mapping, Sequence
from pathlib import Path

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk.trace import ReadableSpan

from gateway.documents import DocumentError, Problem
from gateway.telemetry.access import AccessLog, Target, ToCollector, ToLines
from gateway.telemetry.conventions import resource
from gateway.telemetry.counters import Reading
from gateway.telemetry.export import Export
from gateway.telemetry.flood import Flood
from gateway.telemetry.lines import LineWriter
from gateway.telemetry.shipped import Records, Shipped
from gateway.telemetry.signals import LogRecords, Spans
from gateway.telemetry.spec import OtlpProtocol, OtlpSpec, TelemetrySpec, TracingSpec
from gateway.telemetry.tracing import Tracing
from gateway.telemetry.ways import Way


def tracing(spec: TracingSpec | None) -> Tracing:
    """What makes spans, and sends them where `spec` says.

    Raises:
        DocumentError: the collector's CA cannot be read.

    """
    if spec is None:
        return Tracing()
    return Tracing(spec, Export(Spans(resource(os.environ), _spans_to(spec))))


def access_log(spec: TelemetrySpec, loop: AbstractEventLoop) -> AccessLog | None:
    """What logs handoffs where `spec` says.

    Raises:
        DocumentError: the collector's CA cannot be read.
        OSError: the file cannot be opened.

    """
    target: Target
    if spec.access_log == "none":
        return None
    if spec.logs is not None:
        target = ToCollector(Export(LogRecords(resource(os.environ), _records_to(spec.logs))))
    else:
        file = None if spec.access_log == "stdout" else Path(spec.access_log)
        target = ToLines(LineWriter(loop, AccessLog.name, file))
    return AccessLog(loop, target, Flood(spec.max_lines, spec.max_refused_lines))


def shipping(spec: TelemetrySpec) -> Export[Shipped] | None:
    """What sends the flight recorder's records where `spec` says.

    Raises:
        DocumentError: the collector's CA cannot be read.

    """
    return Export(Records(resource(os.environ), _records_to(spec.records))) if spec.records is not None else None


def shipping_readings(export: Export[Shipped] | None) -> tuple[Reading, ...]:
    """The numbers of records."""

    def shipped() -> Mapping[tuple[()], int]:
        return {(): export.exported if export is not None else 0}

    def unshipped() -> Mapping[tuple[str], int]:
        counts = export.dropped if export is not None else {}
        return {(why,): counts.get(why, 0) for why in ("queue", "collector")}

    taken = "Records of the flight recorder that the collector took."
    dropped = "Records of the flight recorder that the collector did not get, by reason."
    return (
        Reading("phoenixflight_recorder_shipped_records", taken, (), shipped),
        Reading("phoenixflight_recorder_unshipped_records", dropped, ("reason",), unshipped),
    )


def tracing_readings(tracing: Tracing) -> tuple[Reading, ...]:
    """The numbers of spans."""
    export = tracing.export

    def exported() -> Mapping[tuple[()], int]:
        return {(): export.exported if export is not None else 0}

    def dropped() -> Mapping[tuple[str], int]:
        counts = export.dropped if export is not None else {}
        return {
            ("rate",): tracing.not_kept,
            ("queue",): counts.get("queue", 0),
            ("collector",): counts.get("collector", 0),
        }

    return (
        Reading("phoenixflight_spans_exported", "Spans that the collector took.", (), exported),
        Reading("phoenixflight_spans_dropped", "Spans that it did not get, by reason.", ("reason",), dropped),
    )


def access_log_readings(log: AccessLog | None) -> tuple[Reading, ...]:
    """The numbers of lines."""

    def suppressed() -> Mapping[tuple[str], int]:
        return {(outcome,): count for outcome, count in log.suppressed.items()} if log is not None else {}

    text = "Handoffs without a line of their own in the access log, since there were too many in a second."
    return (Reading("phoenixflight_lines_suppressed", text, ("outcome",), suppressed),)


def authorities(spec: OtlpSpec) -> bytes | None:
    """Who has to vouch for the collector, in PEM; ``None``: the authorities that are there anyway.

    Raises:
        DocumentError: they cannot be read, or are none.

    """
    if spec.ca_file is None:
        return None
    try:
        ssl.create_default_context(cafile=spec.ca_file)
        return spec.ca_file.read_bytes()
    except OSError as error:  # of which SSLError is one
        message = f"the collector's CA cannot be used: {error.strerror or error}"
        raise DocumentError([Problem(str(spec.ca_file), 1, 1, message)]) from None


def _spans_to(spec: OtlpSpec) -> Way[Sequence[ReadableSpan]]:
    ca = authorities(spec)
    if spec.protocol is OtlpProtocol.HTTP:
        from gateway.telemetry.over_http import SpansOverHttp  # which takes long, and is not for everybody

        return SpansOverHttp(spec)
    from gateway.telemetry.over_grpc import spans_over_grpc  # of an extra that the configuration asks for

    return spans_over_grpc(spec, ca)


def _records_to(spec: OtlpSpec) -> Way[ExportLogsServiceRequest]:
    ca = authorities(spec)
    if spec.protocol is OtlpProtocol.HTTP:
        from gateway.telemetry.over_http import RecordsOverHttp

        return RecordsOverHttp(spec)
    from gateway.telemetry.over_grpc import records_over_grpc

    return records_over_grpc(spec, ca)
