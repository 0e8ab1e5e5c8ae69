"""Between the two modes of a FlightPacket: header fields and a body, or an `Envelope`.  Pure.

Nothing that the packet defines is lost either way, and the payload keeps its bytes.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final

import http_sf

from gateway.headers import field_value
from gateway.identity import SpiffeId
from gateway.messages import Fields, RequestHead
from gateway.packet import fields as names
from gateway.packet.envelope import MEDIA_TYPE, SPECVERSION, Envelope, encode, validate
from gateway.packet.packet import parse
from gateway.packet.payload import payload_members
from gateway.packet.values import MalformedPacketError

_VERBATIM: Final = {
    names.CREDENTIAL: "credential",
    names.TRACEPARENT: "traceparent",
    names.TRACESTATE: "tracestate",
    names.BAGGAGE: "baggage",
    names.CONTENT_TYPE: "datacontenttype",
}
"""Fields that stand in an envelope as they are, and their members."""

_MAX_SHOWN = 80


def from_binary(head: RequestHead, body: bytes, mint_id: Callable[[], str]) -> Envelope:
    """The packet of a request in binary mode as an envelope.

    ``flight-from`` and ``flight-lineage`` are taken as they stand: they mean something where the gateway has set them.

    Args:
        head: the request, whose host may name the capability.
        body: the payload.
        mint_id: makes an id for a packet that came without one.

    Raises:
        MalformedPacketError: a field is missing or not of its type, or does not fit an envelope.

    """
    raw: dict[bytes, bytes] = {}
    for name, value in head.fields:
        if name.startswith(b"flight-") or name in _VERBATIM:
            raw[name] = raw[name] + b", " + value if name in raw else value
    content = _plain_members(head, raw, mint_id)
    for name, value in raw.items():
        if name in _VERBATIM and value:
            content[_VERBATIM[name]] = value.decode("latin-1")
        elif name not in _VERBATIM and name not in names.PACKET:
            content.setdefault("extensions", {})[name.decode("latin-1")] = value.decode("latin-1")
    if names.BUDGET in raw:
        content["budget"] = _dictionary(names.BUDGET, raw[names.BUDGET])
    if names.CONTEXT in raw:
        content["context"] = _context(raw[names.CONTEXT])
    if names.FROM in raw:
        content["from"] = _structured(names.FROM, raw[names.FROM], "item")[0]
    if names.LINEAGE in raw:
        content["lineage"] = [item for item, _ in _structured(names.LINEAGE, raw[names.LINEAGE], "list")]
    if body:
        content |= payload_members(content.get("datacontenttype", ""), body)
    return validate(content)


def _plain_members(head: RequestHead, raw: dict[bytes, bytes], mint_id: Callable[[], str]) -> dict[str, Any]:
    packet = parse(head, raw, mint_id)
    members = {
        "specversion": SPECVERSION,
        "id": packet.id,
        "capabilities": list(packet.capabilities.names),
        "minTrust": packet.capabilities.min_trust,
        "conversation": packet.conversation,
        "task": packet.task,
        "parent": packet.parent,
        "timeoutMs": packet.timeout_ms,
    }
    return {member: value for member, value in members.items() if value}


def _context(raw: bytes) -> dict[str, Any]:
    members = _dictionary(names.CONTEXT, raw)
    digest = members.get("sha-256")
    if not isinstance(digest, bytes):
        raise MalformedPacketError("flight-context: expected sha-256=:…:, the context's digest in base64")
    return members | {"sha-256": base64.b64encode(digest).decode()}


def _dictionary(name: bytes, raw: bytes) -> dict[str, Any]:
    return {key: value for key, (value, _) in _structured(name, raw, "dictionary").items()}


def _structured(name: bytes, raw: bytes, kind: str) -> Any:
    try:
        return http_sf.parse(raw, tltype=kind)
    except http_sf.StructuredFieldError as error:
        raise MalformedPacketError(f"{name.decode()}: {error.args[0]} (character {error.position})") from None


def to_binary(envelope: Envelope) -> tuple[Fields, bytes]:
    """The header fields and the body of `envelope` in binary mode; its signature stays behind."""
    fields = _fields(envelope)
    if envelope.datacontenttype:
        fields.append((names.CONTENT_TYPE, envelope.datacontenttype.encode()))
    return fields, envelope.body


def to_structured(envelope: Envelope) -> tuple[Fields, bytes]:
    """The header fields and the body of `envelope` in structured mode; they agree with each other."""
    return [*_fields(envelope), (names.CONTENT_TYPE, MEDIA_TYPE.encode())], encode(envelope)


def _fields(envelope: Envelope) -> Fields:
    """The packet's fields, and the trace context."""
    floor = {"min-trust": Decimal(str(envelope.min_trust))} if envelope.min_trust else {}
    first, *others = [http_sf.Token(name) for name in envelope.capabilities]
    context: dict[str, object] = {}
    if envelope.context.sha_256:
        context["sha-256"] = base64.b64decode(envelope.context.sha_256)
    if envelope.context.ref:
        context["ref"] = envelope.context.ref
    structured: dict[bytes, Any] = {
        names.CAPABILITY: [(first, floor), *others],
        names.ID: envelope.id,
        names.CONVERSATION: envelope.conversation,
        names.TASK: envelope.task,
        names.PARENT: envelope.parent,
        names.TIMEOUT: envelope.timeout_ms,
        names.BUDGET: dict(envelope.budget),
        names.CONTEXT: context,
        names.FROM: envelope.from_,
        names.LINEAGE: list(envelope.lineage),
    }
    verbatim = {
        names.CREDENTIAL: envelope.credential,
        names.TRACEPARENT: envelope.traceparent,
        names.TRACESTATE: envelope.tracestate,
        names.BAGGAGE: envelope.baggage,
    }
    return [
        *((name, http_sf.ser(value).encode()) for name, value in structured.items() if value),
        *((name, value.encode()) for name, value in verbatim.items() if value),
        *((name.encode(), value.encode()) for name, value in envelope.extensions.items()),
    ]


def disagreement(
    head: RequestHead, envelope: Envelope, *, caller: SpiffeId, lineage: Sequence[SpiffeId] = ()
) -> str | None:
    """Where a request in structured mode contradicts the envelope that is its body; ``None`` when it does not.

    The decision is made from the header fields, and the agent may read the envelope: both must say the same, absence
    included.  What the envelope says of its origin must be true; it may be silent about that.

    Args:
        head: the request as the caller sent it.
        envelope: its body.
        caller: who the caller is; never taken from `head`.
        lineage: the principals before it, from its verified credential.

    Raises:
        MalformedPacketError: a header field is not of its type.

    """
    if field_value(head.fields, names.ID) is None:
        return f"flight-id: the header is absent, the envelope says {envelope.id}"
    own = [field for field in head.fields if field[0] not in names.GATEWAY_ONLY and field[0] != names.CONTENT_TYPE]
    header = from_binary(RequestHead(head.method, head.scheme, head.authority, head.path, own), b"", str)
    said, written = _agreed(header), _agreed(envelope)
    for name in {**written, **said}:
        if said.get(name) != written.get(name):
            return _difference(name, header, envelope)
    if envelope.from_ not in ("", caller):
        return f"from: the envelope says {envelope.from_}, the caller is {caller}"
    if envelope.lineage and envelope.lineage != tuple(lineage):
        return "lineage: the envelope says other principals than the caller's credential"
    return None


def _agreed(envelope: Envelope) -> dict[bytes, object]:
    """What header fields and envelope must say alike, by field."""
    extensions = {name.encode(): value for name, value in envelope.extensions.items()}
    return extensions | {
        names.CAPABILITY: (frozenset(envelope.capabilities), envelope.min_trust),
        names.ID: envelope.id,
        names.CONVERSATION: envelope.conversation,
        names.TASK: envelope.task,
        names.PARENT: envelope.parent,
        names.TIMEOUT: envelope.timeout_ms,
        names.BUDGET: dict(envelope.budget),
        names.CONTEXT: envelope.context,
        names.CREDENTIAL: envelope.credential,
    }


def _difference(name: bytes, header: Envelope, envelope: Envelope) -> str:
    if name == names.CREDENTIAL:
        return "flight-credential: the header and the envelope have different ones"
    said, written = (field_value(_fields(each), name) or b"nothing" for each in (header, envelope))
    return (
        f"{name.decode()}: the header says {said[:_MAX_SHOWN].decode()}, the envelope {written[:_MAX_SHOWN].decode()}"
    )
