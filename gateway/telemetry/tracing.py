"""W3C Trace Context in and out, and an OpenTelemetry span for each sampled handoff.

An unsampled handoff makes no span object: its context is passed on as it came, or made anew.
"""

from __future__ import annotations

import random
import re

import msgspec
from opentelemetry import trace as otel
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from gateway import __version__
from gateway.handoff import Handoff, Outcome

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_SAMPLED = 0x01


class Trace(msgspec.Struct, frozen=True):
    """The trace context of one handoff."""

    header: bytes
    """``traceparent`` for the agent."""
    trace_id: str
    span: Span | None = None
    """The handoff's span, when it is sampled."""


class Tracing:
    """Decides which handoffs are sampled: as the caller did, or else a share of those without context."""

    def __init__(self, otlp_endpoint: str | None = None, sample_ratio: float = 0.0) -> None:
        """Args: `otlp_endpoint` is the OTLP/HTTP traces URL; ``None`` records no span."""
        self._ratio = sample_ratio if otlp_endpoint else 0.0
        self._provider: TracerProvider | None = None
        self._tracer: otel.Tracer | None = None
        if otlp_endpoint:
            resource = Resource.create({"service.name": "phoenixflight-gateway", "service.version": __version__})
            self._provider = TracerProvider(sampler=ALWAYS_ON, resource=resource)
            self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=otlp_endpoint)))
            self._tracer = self._provider.get_tracer("gateway", __version__)

    def begin(self, traceparent: bytes, now: float) -> Trace:
        """The context for one handoff, from the caller's ``traceparent`` (empty when it sent none)."""
        matched = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
        if matched is not None and (matched[1] == b"ff" or not int(matched[2], 16) or not int(matched[3], 16)):
            matched = None  # W3C Trace Context section 3.2.2: invalid, so start anew
        if matched is not None:
            sampled = bool(int(matched[4], 16) & _SAMPLED)
            if not sampled or self._tracer is None:
                return Trace(traceparent, matched[2].decode())
            parent = SpanContext(
                int(matched[2], 16), int(matched[3], 16), is_remote=True, trace_flags=TraceFlags(_SAMPLED)
            )
            return self._sampled(self._tracer, now, parent)
        if self._tracer is not None and self._ratio and random.random() < self._ratio:
            return self._sampled(self._tracer, now, None)
        trace_id = "%032x" % (random.getrandbits(128) or 1)
        header = b"00-%s-%016x-00" % (trace_id.encode(), random.getrandbits(64) or 1)
        return Trace(header, trace_id)

    def _sampled(self, tracer: otel.Tracer, now: float, parent: SpanContext | None) -> Trace:
        context = otel.set_span_in_context(NonRecordingSpan(parent)) if parent is not None else None
        span = tracer.start_span(
            "handoff", context=context, kind=SpanKind.SERVER, start_time=int(now * 1e9), record_exception=False
        )
        own = span.get_span_context()
        header = b"00-%032x-%016x-01" % (own.trace_id, own.span_id)
        return Trace(header, "%032x" % own.trace_id, span)

    def end(self, trace: Trace, handoff: Handoff) -> None:
        """Complete the handoff's span, if it has one."""
        span = trace.span
        if span is None:
            return
        attributes = {
            "flight.id": handoff.flight_id,
            "flight.capability": handoff.capability,
            "flight.from": handoff.caller,
            "flight.agent": handoff.agent,
            "flight.policy": handoff.policy,
            "flight.rule": handoff.rule,
            "flight.revision": handoff.revision,
            "flight.outcome": handoff.outcome.value,
            "flight.reason": handoff.reason,
            "gen_ai.conversation.id": handoff.conversation,
            "http.request.method": handoff.method,
            "url.path": handoff.path.partition("?")[0],
            "server.address": handoff.authority,
        }
        span.set_attributes({name: value for name, value in attributes.items() if value})
        span.set_attribute("http.response.status_code", handoff.status)
        if handoff.outcome is Outcome.FAILED:
            span.set_status(Status(StatusCode.ERROR, handoff.reason))
        span.end(int((handoff.time.timestamp() + handoff.duration_ms / 1000) * 1e9))

    def close(self) -> None:
        """Export what is left."""
        if self._provider is not None:
            self._provider.shutdown()
