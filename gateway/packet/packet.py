"""Reading a FlightPacket from a request's header fields (binary mode).

Two steps: `sift` goes over the fields once, sets apart the packet's own and drops what a caller may not claim;
`parse` gives those their types (RFC 9651 structured fields) and names the field and character of a mistake.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Any

import http_sf

from gateway.messages import Fields, RequestHead
from gateway.packet import fields as names
from gateway.packet.values import NO_BUDGET, Capabilities, FlightPacket, MalformedPacketError, Sifted
from gateway.packet.w3c import passed_on

CAPABILITY_DOMAIN = b".flight.internal"
"""A request's host under this domain names the capability when ``flight-capability`` is absent."""


# Fields of the caller that `parse` and telemetry read. Lists and dictionaries may come in several lines.
_READ = frozenset(
    {
        names.CAPABILITY,
        names.ID,
        names.CONVERSATION,
        names.TASK,
        names.PARENT,
        names.TIMEOUT,
        names.BUDGET,
        names.CONTEXT,
        names.CREDENTIAL,
        names.CONTENT_DIGEST,
        names.CONTENT_TYPE,
        names.MCP_SESSION,
        names.SIGNATURE,
        names.SIGNATURE_INPUT,
        names.TRACEPARENT,
    }
)


_REPLACED = frozenset({names.TRACEPARENT, names.CREDENTIAL})
"""Of these, what never goes on as it came: the gateway sets its own, or none."""


def sift(fields: Fields, *, trusted_hop: bool = False) -> Sifted:
    """Go over `fields` once; see `Sifted`.

    Args:
        fields: the request's header fields.
        trusted_hop: the caller's forwarding headers are believed and go on.

    """
    flight: dict[bytes, bytes] = {}
    onward: Fields = []
    context: Fields | None = None
    known = _known_roles.get
    for item in fields:
        name = item[0]
        role = known(name) or _role(name)
        if role is _PLAIN:
            onward.append(item)
        elif role is _PACKET:
            if name in flight:
                flight[name] += b", " + item[1]
            else:
                flight[name] = item[1]
            if name not in _REPLACED:
                onward.append(item)
        elif role is _CONTEXT:
            if context is None:
                context = []
            context.append(item)
        elif role is _HOP and trusted_hop:
            onward.append(item)
    if context is not None:
        onward += passed_on(context, flight.get(names.TRACEPARENT, b""))
    return Sifted(flight, onward)


class _Role(Enum):
    """What a field name means to `sift`."""

    PLAIN = 1
    PACKET = 2
    """`parse` or telemetry reads it."""
    HOP = 3
    """Goes on when a trusted hop sent it."""
    CONTEXT = 4
    """Goes on as far as W3C lets it."""
    DROPPED = 5


_PLAIN, _PACKET, _HOP, _CONTEXT = _Role.PLAIN, _Role.PACKET, _Role.HOP, _Role.CONTEXT
_known_roles: dict[bytes, _Role] = {}
"""Memo of `_role`, bounded in number and in the length of its keys."""
_MAX_KNOWN_ROLES = 1024
_MAX_KNOWN_NAME_BYTES = 64


def _role(name: bytes) -> _Role:
    # CGI-style servers fold "_" and "-" together, so flight_from would arrive as flight-from.
    folded = name.replace(b"_", b"-")
    if folded in names.GATEWAY_ONLY or (folded != name and folded in names.MESSAGE_FRAMING):
        role = _Role.DROPPED
    elif folded in names.FORWARDING or folded.startswith(names.FORWARDING_PREFIX):
        role = _Role.HOP
    elif folded in _READ:
        role = _Role.PACKET if folded == name else _Role.DROPPED
    elif name in (names.TRACESTATE, names.BAGGAGE):
        role = _Role.CONTEXT
    else:
        role = _Role.PLAIN
    if len(_known_roles) < _MAX_KNOWN_ROLES and len(name) <= _MAX_KNOWN_NAME_BYTES:
        _known_roles[name] = role
    return role


def parse(head: RequestHead, flight: dict[bytes, bytes], mint_id: Callable[[], str]) -> FlightPacket:
    """Give the packet's fields their types.

    Args:
        head: the request, whose host may name the capability.
        flight: `Sifted.flight`.
        mint_id: makes an id for a packet that came without one.

    Raises:
        MalformedPacketError: a field is missing or not of its type.

    """
    raw = flight.get(names.CAPABILITY)
    if raw is None:
        raw = _capability_from_host(head.authority)
    capabilities = parse_capabilities(raw)
    get = flight.get
    value = get(names.ID)
    packet_id = mint_id() if value is None else _string(names.ID, value)
    value = get(names.CONVERSATION)
    conversation = "" if value is None else _string(names.CONVERSATION, value)
    value = get(names.TASK)
    task = "" if value is None else _string(names.TASK, value)
    value = get(names.PARENT)
    parent = "" if value is None else _string(names.PARENT, value)
    value = get(names.TIMEOUT)
    timeout_ms = 0 if value is None else _milliseconds(names.TIMEOUT, value)
    value = get(names.BUDGET)
    budget = NO_BUDGET if value is None else parse_budget(value)
    value = get(names.CONTEXT)
    context = "" if value is None else context_digest(value)
    affinity = conversation.encode() or get(names.MCP_SESSION) or task.encode()
    alone = not affinity
    if alone:
        affinity = packet_id.encode()
    return FlightPacket(
        packet_id, capabilities, affinity, conversation, task, parent, timeout_ms, alone, budget, context
    )


def _capability_from_host(authority: bytes) -> bytes:
    host = authority.rpartition(b":")[0] or authority
    host = host.lower()
    if host.endswith(CAPABILITY_DOMAIN) and len(host) > len(CAPABILITY_DOMAIN):
        return host[: -len(CAPABILITY_DOMAIN)]
    raise MalformedPacketError(
        "flight-capability is missing: name what the agent must be able to do, like flight-capability: code.execute"
    )


def parse_budget(raw: bytes) -> dict[str, int]:
    """The whole numbers in ``flight-budget``, or in ``flight-usage``: a Dictionary, by unit.

    Raises:
        MalformedPacketError: it is none; the message names the character.

    """
    members = _structured(names.BUDGET, raw, "dictionary")
    return {str(unit): item[0] for unit, item in members.items() if type(item[0]) is int}


_PLAIN_BUDGET = re.compile(rb"(?:[a-z*][a-z0-9_.*-]*=-?[0-9]+(?:, ?)?)*")


def lowered_budget(raw: bytes, budget: Mapping[str, int]) -> bytes:
    """``flight-budget`` with the amounts of `budget`; what it has besides whole numbers stays.

    Args:
        raw: the field as it came, which has been read; empty when there was none.
        budget: by unit.

    """
    if _PLAIN_BUDGET.fullmatch(raw) is not None:
        return b", ".join([b"%s=%d" % (unit.encode("ascii"), amount) for unit, amount in budget.items()])
    members = _structured(names.BUDGET, raw, "dictionary")
    members.update({unit: (amount, {}) for unit, amount in budget.items()})
    return http_sf.ser(members).encode("ascii")


def context_digest(raw: bytes) -> str:
    """The SHA-256 that ``flight-context`` gives, in hexadecimal; empty when it gives only a reference.

    Raises:
        MalformedPacketError: it is no Dictionary, or its ``sha-256`` is no digest.

    """
    members = _structured(names.CONTEXT, raw, "dictionary")
    if "sha-256" not in members:
        return ""
    digest = members["sha-256"][0]
    if type(digest) is not bytes or len(digest) != _SHA256_BYTES:
        raise MalformedPacketError("flight-context: expected sha-256=:…:, the context's digest in base64")
    return digest.hex()


_SHA256_BYTES = 32


def parse_capabilities(raw: bytes) -> Capabilities:
    """``flight-capability``: a List of Tokens, each with an optional ``min-trust`` (Decimal 0 to 1).

    Raises:
        MalformedPacketError: it is not; the message names the character.

    """
    # Callers repeat themselves; what is remembered is bounded in number and in size.
    return _parse_capabilities(raw) if len(raw) > _REMEMBERED_BYTES else _remembered_capabilities(raw)


def _parse_capabilities(raw: bytes) -> Capabilities:
    name = names.CAPABILITY
    found: dict[str, None] = {}
    min_trust = 0.0
    for item, parameters in _structured(name, raw, "list"):
        if not isinstance(item, http_sf.Token):
            raise MalformedPacketError(
                f"flight-capability: {_shown(item)} is not a token; write it bare, like code.execute"
            )
        found[str(item)] = None
        if "min-trust" in parameters:
            min_trust = max(min_trust, _trust(parameters["min-trust"]))
    if not found:
        raise MalformedPacketError("flight-capability: the list is empty (character 0)")
    return Capabilities(tuple(found), min_trust)


_REMEMBERED_BYTES = 256
_remembered_capabilities = lru_cache(maxsize=4096)(_parse_capabilities)


def _trust(value: object) -> float:
    if isinstance(value, Decimal | int) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise MalformedPacketError(f"flight-capability: min-trust={_shown(value)} is not a decimal from 0 to 1")


def _string(name: bytes, raw: bytes) -> str:
    """A String (RFC 9651 section 4.2.5); plain ones are read here, escaped ones by the library."""
    if len(raw) > 2 and raw[:1] == b'"' == raw[-1:]:
        inner = raw[1:-1]
        if b'"' not in inner and b"\\" not in inner and inner.isascii():
            text = inner.decode("ascii")
            if text.isprintable():
                return text
    value, _ = _structured(name, raw, "item")
    if type(value) is not str or not value:
        raise MalformedPacketError(
            f'{name.decode()}: expected a non-empty String in double quotes, like "abc" (character 0)'
        )
    return value


def _milliseconds(name: bytes, raw: bytes) -> int:
    value, _ = _structured(name, raw, "item")
    if type(value) is not int or value <= 0:
        raise MalformedPacketError(f"{name.decode()}: expected a whole number of milliseconds above 0 (character 0)")
    return value


def _structured(name: bytes, raw: bytes, kind: str) -> Any:
    try:
        return http_sf.parse(raw, tltype=kind)
    except http_sf.StructuredFieldError as error:
        raise MalformedPacketError(f"{name.decode()}: {error.args[0]} (character {error.position})") from None


def _shown(value: object) -> str:
    return repr(value)[:60]
