"""The spans of a handoff that has ended: the handoff itself, its decision, each attempt at an agent.  Pure.

Enters: `Ended`.  Leaves: OTLP spans.  See docs/tracing.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from gateway.decision import Forward
from gateway.handoff import Attempt, Handoff
from gateway.recording import Decided
from gateway.routing import Agent
from gateway.telemetry.conventions import (
    SCOPE,
    TIMES,
    Value,
    handoff_attributes,
    http_version,
    is_error,
    key_values,
    method_attributes,
)
from gateway.telemetry.export import let_others_run

HANDOFF: Final = 1
DECISION: Final = 2
ATTEMPT: Final = 2
"""What is added to a handoff's base to have the id of a span; to `ATTEMPT` the attempt's number, from 1."""

_HAS_IS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200
"""Of a span's flags: whether it is known that its parent, or what is linked to, is of another process."""
_NS_PER_MS: Final = 1_000_000
_NOBODY: Final[Mapping[str, Agent]] = {}


class SpanContext(NamedTuple):
    """Which span."""

    trace_id: str
    span_id: int
    flags: int


class Decision(NamedTuple):
    """What was decided before any agent was asked."""

    allow: bool
    policy: str
    rule: str
    reason: str
    revision: str
    eligible: int
    """Agents that policy admits."""
    agent: str
    """The ring's first choice."""


class Ended(NamedTuple):
    """A handoff that has ended, and what its spans need to know beside it; holds nothing that the caller sent."""

    handoff: Handoff
    decision: Decision
    scheme: str
    members: Mapping[str, Agent]
    """Where agents are, by name."""
    base: int
    """See `HANDOFF`."""
    flags: int
    parent: bytes
    """The caller's span, in hexadecimal; empty when there was none."""
    born_of: SpanContext | None
    """The handoff of the packet's parent."""

    @classmethod
    def of(
        cls, handoff: Handoff, decided: Decided, base: int, flags: int, parent: bytes, born_of: SpanContext | None
    ) -> Ended:
        """Take from `decided` what is needed."""
        verdict = decided.verdict
        members = _NOBODY
        if isinstance(verdict, Forward):
            name = verdict.agent.name
            granted = verdict.route.grants[name]
            members = verdict.route.members
            eligible = len(verdict.route.grants)
            decision = Decision(True, granted.policy, granted.rule, "", decided.revision, eligible, name)
        else:
            refusal = verdict.refusal
            decision = Decision(False, refusal.policy, refusal.rule, refusal.reason.slug, decided.revision, 0, "")
        return cls(handoff, decision, decided.head.scheme.decode("latin-1"), members, base, flags, parent, born_of)


def asked_last(handoff: Handoff) -> bool:
    """Whether there was an attempt after those that came to nothing."""
    return handoff.asked_ms > 0 and not (handoff.failed and handoff.failed[-1].asked_ms == handoff.asked_ms)


def spans_of(handoff: Handoff) -> int:
    """How many spans it has."""
    return 2 + len(handoff.failed) + asked_last(handoff)


class Spans:
    """Handoffs that have ended, as OTLP's traces."""

    name = "spans"
    method = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
    path = "/v1/traces"

    def __init__(self, resource: Resource) -> None:
        self._resource = resource

    def encode(self, batch: Sequence[Ended]) -> bytes:
        """One message of all their spans."""
        scope = ScopeSpans(scope=SCOPE)
        for ended in batch:
            scope.spans.extend(spans(ended))
            let_others_run()
        resource_spans = ResourceSpans(resource=self._resource, scope_spans=[scope])
        return ExportTraceServiceRequest(resource_spans=[resource_spans]).SerializeToString()

    def count(self, ended: Ended) -> int:
        """How many spans."""
        return spans_of(ended.handoff)

    def rejected(self, answer: bytes) -> int:
        """How many the collector did not take, by its answer.

        Raises:
            DecodeError: it is no answer.

        """
        return int(ExportTraceServiceResponse.FromString(answer).partial_success.rejected_spans)


def spans(ended: Ended) -> Iterator[Span]:
    """The handoff's span and those below it."""
    handoff = ended.handoff
    yield _handoff(ended)
    yield _decision(ended)
    number = 0
    for number, attempt in enumerate(handoff.failed, 1):
        yield _attempt(ended, number, attempt)
    if asked_last(handoff):
        yield _last_attempt(ended, number + 1)


def _handoff(ended: Ended) -> Span:
    handoff = ended.handoff
    span = _span(ended, "handoff", Span.SPAN_KIND_SERVER, HANDOFF, 0.0, handoff.duration_ms)
    span.parent_span_id = bytes.fromhex(ended.parent.decode())
    if ended.parent:
        span.flags |= _IS_REMOTE
    attributes: list[tuple[str, Value]] = [("url.scheme", ended.scheme)] if ended.scheme else []
    span.attributes.extend(key_values([*attributes, *handoff_attributes(handoff, TIMES)]))
    if is_error(handoff):
        span.status.CopyFrom(_error(handoff.detail or handoff.reason))
    if ended.born_of is not None:
        trace_id, span_id, flags = ended.born_of
        link = Span.Link(
            trace_id=bytes.fromhex(trace_id),
            span_id=span_id.to_bytes(8, "big"),
            flags=flags | _HAS_IS_REMOTE,
            attributes=key_values([("flight.id", handoff.parent)]),
        )
        span.links.append(link)
    return span


def _decision(ended: Ended) -> Span:
    handoff, decision = ended.handoff, ended.decision
    span = _span(ended, "decision", Span.SPAN_KIND_INTERNAL, DECISION, 0.0, handoff.gateway_ms)
    attributes: list[tuple[str, Value]] = [
        ("flight.decision", "allow" if decision.allow else "refuse"),
        ("flight.policy", decision.policy),
        ("flight.rule", decision.rule),
        ("flight.reason", decision.reason),
        ("flight.revision", decision.revision),
        ("flight.agent", decision.agent),
        ("flight.shadow", handoff.shadow),
    ]
    span.attributes.extend(key_values((name, value) for name, value in attributes if value))
    span.attributes.extend(key_values([("flight.eligible", decision.eligible)]))
    return span


def _attempt(ended: Ended, number: int, attempt: Attempt) -> Span:
    span = _client(ended, number, attempt.agent, attempt.asked_ms, attempt.ended_ms)
    span.attributes.extend(key_values([("error.type", attempt.cause)]))
    span.status.CopyFrom(_error(attempt.cause))
    _tell(span, ended, "sent", attempt.sent_ms)
    return span


def _last_attempt(ended: Ended, number: int) -> Span:
    handoff = ended.handoff
    span = _client(ended, number, handoff.agent, handoff.asked_ms, handoff.duration_ms)
    _tell(span, ended, "sent", handoff.sent_ms)
    _tell(span, ended, "answered", handoff.answered_ms)
    if handoff.answered_ms:
        span.attributes.extend(key_values([("http.response.status_code", handoff.status)]))
    if handoff.reason or handoff.status >= 400:
        span.attributes.extend(key_values([("error.type", handoff.reason or str(handoff.status))]))
        span.status.CopyFrom(_error(handoff.detail or handoff.reason))
    return span


def _client(ended: Ended, number: int, name: str, from_ms: float, until_ms: float) -> Span:
    handoff = ended.handoff
    span = _span(ended, "attempt", Span.SPAN_KIND_CLIENT, ATTEMPT + number, from_ms, until_ms)
    attributes: list[tuple[str, Value]] = [
        ("gen_ai.operation.name", "invoke_agent"),
        ("gen_ai.agent.name", name),
        ("flight.agent", name),
        ("network.protocol.name", "http"),
        *method_attributes(handoff.method),
    ]
    if handoff.conversation:
        attributes.append(("gen_ai.conversation.id", handoff.conversation))
    agent = ended.members.get(name)
    if agent is not None:
        host = f"[{agent.host}]" if ":" in agent.host else agent.host
        attributes += (
            ("server.address", agent.host),
            ("server.port", agent.port),
            ("network.protocol.version", http_version(agent.protocol.value)),
            ("url.full", f"{'https' if agent.tls else 'http'}://{host}:{agent.port}{handoff.path}"),
        )
    if number > 1:
        attributes.append(("http.request.resend_count", number - 1))
    span.attributes.extend(key_values(attributes))
    return span


def _span(ended: Ended, name: str, kind: Span.SpanKind.ValueType, number: int, from_ms: float, until_ms: float) -> Span:
    return Span(
        trace_id=bytes.fromhex(ended.handoff.trace_id),
        span_id=(ended.base + number).to_bytes(8, "big"),
        parent_span_id=(ended.base + HANDOFF).to_bytes(8, "big"),
        name=name,
        kind=kind,
        flags=ended.flags | _HAS_IS_REMOTE,
        start_time_unix_nano=_at(ended, from_ms),
        end_time_unix_nano=_at(ended, until_ms),
    )


def _at(ended: Ended, ms: float) -> int:
    """Nanoseconds since the epoch."""
    return int(ended.handoff.time.timestamp() * 1e6) * 1000 + int(ms * _NS_PER_MS)


def _tell(span: Span, ended: Ended, name: str, ms: float) -> None:
    """An event that happened so long after the request's head was read; 0: it did not."""
    if ms:
        span.events.append(Span.Event(name=name, time_unix_nano=_at(ended, ms)))


def _error(message: str) -> Status:
    return Status(code=Status.STATUS_CODE_ERROR, message=message)
