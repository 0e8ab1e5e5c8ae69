"""From what is configured to what makes spans and lines, and sends them; and their numbers."""

from __future__ import annotations

import os
import ssl
from asyncio import AbstractEventLoop
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from gateway.documents import DocumentError, Problem
from gateway.telemetry.access import AccessLog, Target, ToCollector, ToLines
from gateway.telemetry.conventions import resource
from gateway.telemetry.counters import Reading
from gateway.telemetry.export import Export, Sender
from gateway.telemetry.flood import Flood
from gateway.telemetry.lines import LineWriter
from gateway.telemetry.log_records import Line, LogRecords
from gateway.telemetry.otlp_http import HttpSender
from gateway.telemetry.spans import Ended, Spans
from gateway.telemetry.spec import OtlpProtocol, OtlpSpec, TelemetrySpec, TracingSpec
from gateway.telemetry.tracing import Tracing


def tracing(spec: TracingSpec | None) -> Tracing:
    """What makes spans, and sends them where `spec` says.

    Raises:
        DocumentError: the collector's CA cannot be read.

    """
    if spec is None:
        return Tracing()
    signal = Spans(resource(os.environ))
    export: Export[Ended] = Export(signal, _sender(spec, signal), spec.timeout_s)
    return Tracing(spec, export)


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
        signal = LogRecords(resource(os.environ))
        export: Export[Line] = Export(signal, _sender(spec.logs, signal), spec.logs.timeout_s)
        target = ToCollector(export)
    else:
        file = None if spec.access_log == "stdout" else Path(spec.access_log)
        target = ToLines(LineWriter(loop, AccessLog.name, file))
    return AccessLog(loop, target, Flood(spec.max_lines, spec.max_refused_lines))


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


class Trust(NamedTuple):
    """Whom a collector has to be vouched for by; both are ``None`` where there is no TLS."""

    context: ssl.SSLContext | None
    ca: bytes | None
    """In PEM; ``None`` for the authorities that are there anyway, too."""


def trust(spec: OtlpSpec) -> Trust:
    """What `spec` says about it.

    Raises:
        DocumentError: the collector's CA cannot be read.

    """
    if not spec.otlp_endpoint.startswith("https://"):
        return Trust(None, None)
    try:
        ca = spec.ca_file.read_bytes() if spec.ca_file is not None else None
        return Trust(ssl.create_default_context(cafile=spec.ca_file), ca)
    except OSError as error:  # of which SSLError is one
        message = f"the collector's CA cannot be used: {error.strerror or error}"
        raise DocumentError([Problem(str(spec.ca_file), 1, 1, message)]) from None


def _sender(spec: OtlpSpec, signal: Spans | LogRecords) -> Sender:
    context, ca = trust(spec)
    if spec.protocol is OtlpProtocol.HTTP:
        return HttpSender(spec.otlp_endpoint, signal.path, spec.headers, context)
    from gateway.telemetry.otlp_grpc import GrpcSender  # of an extra that the configuration asks for

    return GrpcSender(spec.otlp_endpoint, signal.method, spec.headers, ca)
