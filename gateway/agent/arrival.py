"""What has arrived, and what may be done with it: the packet, whom its work has passed through, what is left of it."""

from __future__ import annotations

import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import http_sf
import httpx
import msgspec

from gateway.agent.onward import Onward
from gateway.identity import IdentityError, SpiffeId, parse_spiffe_id
from gateway.messages import Fields, RequestHead
from gateway.packet import FlightPacket, MalformedPacketError, parse, sift
from gateway.packet import fields as names
from gateway.packet.components import combine
from gateway.packet.signature import Signature
from gateway.usage import written


class NoTimeLeftError(TimeoutError):
    """What is left of ``flight-timeout`` is nothing: whoever waits for the work has gone, or is about to."""


class Held(msgspec.Struct, frozen=True):
    """What a handoff credential says; the gateway has made it for this agent, which need not verify it."""

    id: str
    """``jti``."""
    root: str
    """The id of the packet that the work began with (``txn``)."""
    capabilities: tuple[str, ...]
    """What may be asked for with it, as patterns."""
    budget: dict[str, int]
    """What may be spent, by unit; ``hops`` is how often the work may be handed on yet."""
    expires: float
    """Seconds since the epoch."""
    token: str
    """The credential itself.  It belongs into ``flight-credential``, and into no log."""


class Arrival(msgspec.Struct, frozen=True):
    """A packet that has arrived: the value of ``scope["flight"]``."""

    packet: FlightPacket
    sender: SpiffeId
    """Who sent it, as the gateway has authenticated it (``flight-from``)."""
    signature: Signature | None
    """The sender's signature, when this agent verifies signatures."""
    lineage: tuple[SpiffeId, ...] = ()
    """Whom the work has passed through, oldest first, the sender last; empty when it is not handed on under a grant."""
    held: Held | None = None
    """What the agent may hand on with; ``None`` when it was granted nothing."""
    context: str = ""
    """The SHA-256, in hexadecimal, of what ``flight-context`` refers to."""
    trace: Mapping[str, str] = {}
    """``traceparent`` and ``tracestate``."""
    arrived: float = 0.0
    """When, in seconds of a clock that only goes forward."""
    clock: Callable[[], float] = time.monotonic
    """That clock."""

    @classmethod
    def received(cls, headers: Mapping[str, str]) -> Arrival:
        """What a request's `headers` say, where there is no ASGI scope to wrap: in a framework's own context.

        Raises:
            MalformedPacketError: they are no packet from the gateway.

        """
        fields: Fields = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        return read(RequestHead(b"", b"", headers.get("host", "").encode("latin-1"), b"", fields))

    @property
    def conversation(self) -> str:
        """The conversation that the packet belongs to; empty when it names none."""
        return self.packet.conversation

    @property
    def root(self) -> str:
        """The id of the packet that the work began with, which may be this one."""
        return self.held.root if self.held is not None else self.packet.id

    @property
    def budget(self) -> Mapping[str, int]:
        """What may be spent on this packet's work, by unit; of a unit that is missing, as much as it takes."""
        return self.packet.budget

    @property
    def time_left_s(self) -> float | None:
        """How long the sender still waits, in seconds; ``None`` when it did not say."""
        if not self.packet.timeout_ms:
            return None
        return self.packet.timeout_ms / 1000 - (self.clock() - self.arrived)

    def headers(
        self, capability: str, *, budget: Mapping[str, int] | None = None, context: str | None = None
    ) -> dict[str, str]:
        """The header fields that hand a part of the work on.

        The gateway narrows the credential by the rule that lets the packet through.

        Args:
            capability: what the next agent must be able to do; several with commas.
            budget: what it may spend, by unit; of a unit that is not named, all that is left.
            context: the SHA-256, in hexadecimal, of what it should know; else what this packet referred to.

        Raises:
            NoTimeLeftError: the sender of this packet waits no longer.

        """
        packet = self.packet
        if self.held is None:  # nothing else tells the next agent of the bounds
            budget = {**packet.budget, **(budget or {})}
        given = {
            "flight-capability": capability,
            "flight-parent": _quoted(packet.id),
            "flight-conversation": _quoted(packet.conversation),
            "flight-task": _quoted(packet.task),
            "flight-timeout": self._timeout(),
            "flight-budget": written(budget or {}),
            "flight-context": _digest(self.context if context is None else context),
            "flight-credential": self.held.token if self.held is not None else "",
            **self.trace,
        }
        return {name: value for name, value in given.items() if value}

    def onward(self, client: httpx.AsyncClient) -> Onward:
        """Hand parts of the work on with `client`, which has the gateway as its ``base_url``."""
        return Onward(self, client)

    def usage(self, **spent: int) -> dict[str, str]:
        """The answer's header (or trailer) that says what this agent spent itself: ``arrival.usage(tokens=812)``.

        What others spent, to whom it handed work on, they tell themselves.

        Raises:
            ValueError: an amount is below 0.

        """
        if any(amount < 0 for amount in spent.values()):
            raise ValueError(f"nobody spends less than nothing: {written(spent)}")
        return {"flight-usage": written(spent)}

    def _timeout(self) -> str:
        left = self.time_left_s
        if left is None:
            return ""
        milliseconds = int(left * 1000)
        if milliseconds <= 0:
            raise NoTimeLeftError("whoever sent the packet waits no longer: nothing is handed on")
        return str(milliseconds)


def read(
    head: RequestHead, values: dict[bytes, bytes] | None = None, clock: Callable[[], float] = time.monotonic
) -> Arrival:
    """The packet in a request that the gateway has sent on.

    Args:
        head: the request as its sender made it.
        values: its fields, each name once; else found in `head`.
        clock: seconds that only go forward.

    Raises:
        MalformedPacketError: a field is missing or not of its type.

    """
    if values is None:
        values = combine(head.fields)
    sender = values.get(names.FROM)
    if sender is None:
        raise MalformedPacketError("flight-from is missing: only the gateway may send to this agent")
    packet = parse(head, sift(head.fields).flight, _no_id)
    token = values.get(names.CREDENTIAL)
    return Arrival(
        packet,
        _principal(names.FROM, sender.decode("latin-1").strip('"')),
        None,
        tuple([_principal(names.LINEAGE, each) for each in _strings(names.LINEAGE, values.get(names.LINEAGE, b""))]),
        None if token is None else _held(token),
        _context(values.get(names.CONTEXT, b"")),
        {name.decode(): values[name].decode("latin-1") for name in _TRACE if name in values},
        clock(),
        clock,
    )


_TRACE = (names.TRACEPARENT, names.TRACESTATE)


class _Claims(msgspec.Struct):
    jti: str
    txn: str
    exp: int
    cap: tuple[str, ...]
    bud: dict[str, int]


_claims = msgspec.json.Decoder(_Claims).decode


def _held(token: bytes) -> Held:
    """What a JWT (RFC 7519) says, unverified: the gateway lets nobody else's through to an agent."""
    try:
        _, payload, _ = token.split(b".")
        claims = _claims(urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
        return Held(claims.jti, claims.txn, claims.cap, claims.bud, float(claims.exp), token.decode("ascii"))
    except ValueError:
        raise MalformedPacketError("flight-credential: not a credential of a gateway's") from None


def _principal(name: bytes, text: str) -> SpiffeId:
    try:
        return parse_spiffe_id(text)
    except IdentityError as error:
        raise MalformedPacketError(f"{name.decode()}: {error}") from None


def _strings(name: bytes, raw: bytes) -> list[str]:
    """A List of Strings (RFC 9651 section 3.1)."""
    return [str(item) for item, _ in _structured(name, raw, "list")] if raw else []


def _context(raw: bytes) -> str:
    member = _structured(names.CONTEXT, raw, "dictionary").get("sha-256") if raw else None
    return member[0].hex() if member is not None and isinstance(member[0], bytes) else ""


def _structured(name: bytes, raw: bytes, kind: str) -> Any:
    try:
        return http_sf.parse(raw, tltype=kind)
    except http_sf.StructuredFieldError as error:
        raise MalformedPacketError(f"{name.decode()}: {error.args[0]} (character {error.position})") from None


def _quoted(text: str) -> str:
    return names.sf_string(text).decode("ascii") if text else ""


def _digest(hexadecimal: str) -> str:
    return http_sf.ser({"sha-256": (bytes.fromhex(hexadecimal), {})}) if hexadecimal else ""


def _no_id() -> NoReturn:
    raise MalformedPacketError("flight-id is missing: only the gateway, which sets it, may send to this agent")
