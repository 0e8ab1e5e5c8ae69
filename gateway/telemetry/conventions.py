"""What fields of a handoff are called in OpenTelemetry: by its semantic conventions where they have a name for it.

HTTP and error attributes are of https://opentelemetry.io/docs/specs/semconv/http/http-spans/ (stable), ``gen_ai.*`` of
https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-agent-spans/ (in development); ``flight.*`` are ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import unquote

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from gateway import __version__
from gateway.handoff import Attempt, Handoff, Outcome

MAX_VALUE_CHARACTERS: Final = 256
"""Of an attribute; what is longer is cut off."""

Value = str | int | float | bool | tuple[str, ...]

ATTRIBUTES: Final = {
    "outcome": "flight.outcome",
    "flight_id": "flight.id",
    "conversation": "gen_ai.conversation.id",
    "task": "flight.task",
    "parent": "flight.parent",
    "caller": "flight.from",
    "signer": "flight.signer",
    "capability": "flight.capability",
    "agent": "flight.agent",
    "reason": "flight.reason",
    "detail": "flight.detail",
    "policy": "flight.policy",
    "rule": "flight.rule",
    "revision": "flight.revision",
    "shadow": "flight.shadow",
    "listener": "flight.listener",
    "protocol": "network.protocol.version",
    "method": "http.request.method",
    "authority": "server.address",
    "path": "url.path",
    "status": "http.response.status_code",
    "attempts": "flight.attempts",
    "failed": "flight.failed",
    "brokered": "flight.brokered",
    "usage": "flight.usage",
    "reserved": "flight.reserved",
    "approval": "flight.approval",
    "repeated": "flight.repeated",
    "bytes_in": "http.request.body.size",
    "bytes_out": "http.response.body.size",
    "duration_ms": "flight.duration_ms",
    "waited_ms": "flight.waited_ms",
    "gateway_ms": "flight.gateway_ms",
    "asked_ms": "flight.asked_ms",
    "sent_ms": "flight.sent_ms",
    "answered_ms": "flight.answered_ms",
    "lineage": "flight.lineage",
    "root": "flight.root",
    "credential": "flight.credential",
    "destination": "flight.destination",
}
"""By the field of `Handoff`.  Not here: ``time`` and ``trace_id``, which spans and log records have places for."""

TIMES: Final = frozenset({"duration_ms", "gateway_ms", "asked_ms", "sent_ms", "answered_ms"})
"""Of these fields, those that a span tells with its own times."""

SCOPE: Final = InstrumentationScope(name="gateway", version=__version__)

_METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"},
)
_VERSIONS: Final = {"http/1.1": "1.1", "h2": "2", "h2c": "2"}


def handoff_attributes(handoff: Handoff, leave_out: frozenset[str] = frozenset()) -> Iterator[tuple[str, Value]]:
    """What `handoff` says, by the names above; values that are empty are left out, and so are fields in `leave_out`."""
    yield "network.protocol.name", "http"
    for field, name in ATTRIBUTES.items():
        if field in leave_out:
            continue
        value = getattr(handoff, field)
        if not value:
            continue
        match field:
            case "outcome":
                value = value.value
            case "protocol":
                value = http_version(value)
            case "method":
                yield from method_attributes(value)
                continue
            case "authority":
                value, port = host_and_port(value)
                if port:
                    yield "server.port", port
            case "failed":
                value = tuple(map(_told, value))
        yield name, value
    if is_error(handoff):
        yield "error.type", handoff.reason or str(handoff.status)


def is_error(handoff: Handoff) -> bool:
    """Whether a server's span of it is an error: what is refused as it should be is none."""
    return handoff.outcome in (Outcome.FAILED, Outcome.REVOKED) or handoff.status >= 500


def http_version(protocol: str) -> str:
    """``1.1`` or ``2``, of the name of a protocol here."""
    return _VERSIONS.get(protocol, protocol)


def method_attributes(method: str) -> Iterator[tuple[str, Value]]:
    """Methods that nobody has registered are of one name, since callers may make up as many as they like."""
    if method in _METHODS:
        yield "http.request.method", method
    else:
        yield "http.request.method", "_OTHER"
        yield "http.request.method_original", method


def host_and_port(authority: str) -> tuple[str, int]:
    """Both of ``host:port``; port 0 where there is none."""
    host, colon, port = authority.rpartition(":")
    if colon and port.isascii() and port.isdigit() and len(port) <= 5 and not host.endswith(":"):
        return host.strip("[]"), int(port)
    return authority.strip("[]"), 0


def cut(attributes: Iterable[tuple[str, Value]]) -> dict[str, Value]:
    """By name, and none too long."""
    return {name: _cut(value) for name, value in attributes}


def resource(environment: Mapping[str, str]) -> Resource:
    """Who tells: the gateway, where it runs, and what `environment` adds, in the variables that OpenTelemetry names."""
    attributes: dict[str, Value] = {
        "service.name": "phoenixflight-gateway",
        "service.version": __version__,
        "host.name": os.uname().nodename,
        "process.pid": os.getpid(),
    }
    for pair in environment.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        name, equals, value = pair.partition("=")
        if equals and name.strip():
            attributes[name.strip()] = unquote(value.strip())
    if environment.get("OTEL_SERVICE_NAME"):
        attributes["service.name"] = environment["OTEL_SERVICE_NAME"]
    return Resource(cut(attributes.items()))


def _cut(value: Value) -> Value:
    if isinstance(value, str):
        return value[:MAX_VALUE_CHARACTERS]
    return tuple([each[:MAX_VALUE_CHARACTERS] for each in value]) if isinstance(value, tuple) else value


def _told(attempt: Attempt) -> str:
    return f"{attempt.agent}: {attempt.cause}"
