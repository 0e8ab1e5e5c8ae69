"""The spans of a handoff that has ended: the handoff itself, its decision, each attempt at an agent.  Pure.

Enters: `Ended`.  Leaves: spans of OpenTelemetry's SDK.  See docs/tracing.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from opentelemetry import trace as api
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, TraceFlags

from gateway.decision import Forward
from gateway.handoff import Attempt, Handoff
from gateway.routing import Agent
from gateway.telemetry.conventions import (
    SCOPE,
    TIMES,
    Value,
    cut,
    handoff_attributes,
    http_version,
    is_error,
    method_attributes,
)
from gateway.verdict import Decided

HANDOFF: Final = 1
DECISION: Final = 2
ATTEMPT: Final = 2
"""What is added to a handoff's base to have the id of a span; to `ATTEMPT` the attempt's number, from 1."""

_UNSET: Final = Status(StatusCode.UNSET)
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


def spans(ended: Ended, resource: Resource) -> Iterator[ReadableSpan]:
    """The handoff's span and those below it; `resource` tells."""
    handoff = ended.handoff
    yield _handoff(ended, resource)
    yield _decision(ended, resource)
    number = 0
    for number, attempt in enumerate(handoff.failed, 1):
        yield _attempt(ended, resource, number, attempt)
    if asked_last(handoff):
        yield _last_attempt(ended, resource, number + 1)


def _handoff(ended: Ended, resource: Resource) -> ReadableSpan:
    handoff = ended.handoff
    attributes: list[tuple[str, Value]] = [("url.scheme", ended.scheme)] if ended.scheme else []
    links: tuple[Link, ...] = ()
    if ended.born_of is not None:
        trace_id, span_id, flags = ended.born_of
        born_of = api.SpanContext(int(trace_id, 16), span_id, False, TraceFlags(flags))
        links = (Link(born_of, cut([("flight.id", handoff.parent)])),)
    return ReadableSpan(
        "handoff",
        _context(ended, ended.base + HANDOFF),
        _context(ended, int(ended.parent, 16), is_remote=True) if ended.parent else None,
        resource,
        cut([*attributes, *handoff_attributes(handoff, TIMES)]),
        links=links,
        kind=SpanKind.SERVER,
        status=_error(handoff.detail or handoff.reason) if is_error(handoff) else _UNSET,
        start_time=_at(ended, 0.0),
        end_time=_at(ended, handoff.duration_ms),
        instrumentation_scope=SCOPE,
    )


def _decision(ended: Ended, resource: Resource) -> ReadableSpan:
    handoff, decision = ended.handoff, ended.decision
    attributes: list[tuple[str, Value]] = [
        ("flight.decision", "allow" if decision.allow else "refuse"),
        ("flight.policy", decision.policy),
        ("flight.rule", decision.rule),
        ("flight.reason", decision.reason),
        ("flight.revision", decision.revision),
        ("flight.agent", decision.agent),
        ("flight.shadow", handoff.shadow),
    ]
    told = [(name, value) for name, value in attributes if value]
    return ReadableSpan(
        "decision",
        _context(ended, ended.base + DECISION),
        _context(ended, ended.base + HANDOFF),
        resource,
        cut([*told, ("flight.eligible", decision.eligible)]),
        start_time=_at(ended, 0.0),
        end_time=_at(ended, handoff.gateway_ms),
        instrumentation_scope=SCOPE,
    )


def _attempt(ended: Ended, resource: Resource, number: int, attempt: Attempt) -> ReadableSpan:
    return _client(
        ended,
        resource,
        number,
        attempt.agent,
        (attempt.asked_ms, attempt.ended_ms),
        [("error.type", attempt.cause)],
        _events(ended, ("sent", attempt.sent_ms)),
        _error(attempt.cause),
    )


def _last_attempt(ended: Ended, resource: Resource, number: int) -> ReadableSpan:
    handoff = ended.handoff
    status = _UNSET
    attributes: list[tuple[str, Value]] = []
    if handoff.answered_ms:
        attributes.append(("http.response.status_code", handoff.status))
    if handoff.reason or handoff.status >= 400:
        attributes.append(("error.type", handoff.reason or str(handoff.status)))
        status = _error(handoff.detail or handoff.reason)
    events = _events(ended, ("sent", handoff.sent_ms), ("answered", handoff.answered_ms))
    times = (handoff.asked_ms, handoff.duration_ms)
    return _client(ended, resource, number, handoff.agent, times, attributes, events, status)


def _client(
    ended: Ended,
    resource: Resource,
    number: int,
    name: str,
    times: tuple[float, float],
    came_of_it: Iterable[tuple[str, Value]],
    events: tuple[Event, ...],
    status: Status,
) -> ReadableSpan:
    """The span of attempt `number`, from 1, at the agent of that name."""
    return ReadableSpan(
        "attempt",
        _context(ended, ended.base + ATTEMPT + number),
        _context(ended, ended.base + HANDOFF),
        resource,
        cut([*_asked(ended, number, name), *came_of_it]),
        events,
        kind=SpanKind.CLIENT,
        status=status,
        start_time=_at(ended, times[0]),
        end_time=_at(ended, times[1]),
        instrumentation_scope=SCOPE,
    )


def _asked(ended: Ended, number: int, name: str) -> Iterator[tuple[str, Value]]:
    handoff = ended.handoff
    yield "gen_ai.operation.name", "invoke_agent"
    yield "gen_ai.agent.name", name
    yield "flight.agent", name
    yield "network.protocol.name", "http"
    yield from method_attributes(handoff.method)
    if handoff.conversation:
        yield "gen_ai.conversation.id", handoff.conversation
    agent = ended.members.get(name)
    if agent is not None:
        host = f"[{agent.host}]" if ":" in agent.host else agent.host
        yield "server.address", agent.host
        yield "server.port", agent.port
        yield "network.protocol.version", http_version(agent.protocol.value)
        yield "url.full", f"{'https' if agent.tls else 'http'}://{host}:{agent.port}{handoff.path}"
    if number > 1:
        yield "http.request.resend_count", number - 1


def _context(ended: Ended, span_id: int, *, is_remote: bool = False) -> api.SpanContext:
    return api.SpanContext(int(ended.handoff.trace_id, 16), span_id, is_remote, TraceFlags(ended.flags))


def _at(ended: Ended, ms: float) -> int:
    """Nanoseconds since the epoch."""
    return int(ended.handoff.time.timestamp() * 1e6) * 1000 + int(ms * _NS_PER_MS)


def _events(ended: Ended, *times: tuple[str, float]) -> tuple[Event, ...]:
    """What happened so long after the request's head was read; 0: it did not."""
    return tuple([Event(name, timestamp=_at(ended, ms)) for name, ms in times if ms])


def _error(message: str) -> Status:
    return Status(StatusCode.ERROR, message)
