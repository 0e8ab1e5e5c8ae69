"""The verdict: what becomes of a request, and the decision that it came of.  Pure."""

from __future__ import annotations

from typing import Final

from gateway.authority import Credential
from gateway.identity import Principal
from gateway.messages import Fields, RequestHead
from gateway.packet import FlightPacket
from gateway.packet.signature import Signature
from gateway.policy import NO_EVIDENCE, Evidence
from gateway.refusal import Refusal
from gateway.routes import Route
from gateway.routing import Agent
from gateway.snapshot import Shadow
from gateway.value import Value


class Forward(Value):
    """Hand the packet on."""

    def __init__(
        self,
        packet: FlightPacket,
        agent: Agent,
        route: Route,
        fields: Fields,
        traceparent: bytes,
        evidence: Evidence,
        signature: Signature | None,
        content_digest: bytes,
        structured: bool,
        shadow: Shadow | None,
        held: Credential | None = None,
    ) -> None:
        self.packet: Final = packet
        self.agent: Final = agent
        """The ring's first choice; a conversation's lease, or the load, may have it go to another of `route`."""
        self.route: Final = route
        self.fields: Final = fields
        """The header fields for the agent, less the trace context, which telemetry adds."""
        self.traceparent: Final = traceparent
        """The caller's W3C trace context, empty when it sent none."""
        self.evidence: Final = evidence
        """What was proven, for judging an open stream again."""
        self.signature: Final = signature
        """To be accepted once."""
        self.content_digest: Final = content_digest
        """What the body must match, as the field says it; empty when there is nothing to hold it against."""
        self.structured: Final = structured
        """The body is an envelope, which must say what the header fields say."""
        self.shadow: Final = shadow
        self.held: Final = held
        """The handoff credential that the caller showed, verified."""

    def parts(self) -> tuple[object, ...]:
        return (
            self.packet,
            self.agent,
            self.route,
            self.fields,
            self.traceparent,
            self.evidence,
            self.signature,
            self.content_digest,
            self.structured,
            self.shadow,
            self.held,
        )


class Refuse(Value):
    """Answer the caller with `refusal`."""

    def __init__(
        self,
        refusal: Refusal,
        packet: FlightPacket | None,
        content_type: bytes,
        traceparent: bytes,
        evidence: Evidence = NO_EVIDENCE,
        shadow: Shadow | None = None,
        held: Credential | None = None,
    ) -> None:
        self.refusal: Final = refusal
        self.packet: Final = packet
        """``None`` when the request is no readable packet."""
        self.content_type: Final = content_type
        self.traceparent: Final = traceparent
        self.evidence: Final = evidence
        self.shadow: Final = shadow
        self.held: Final = held

    def parts(self) -> tuple[object, ...]:
        return self.refusal, self.packet, self.content_type, self.traceparent, self.evidence, self.shadow, self.held


Verdict = Forward | Refuse


class Decided(Value):
    """A decision as it was taken, with everything that the caller sent in its head."""

    def __init__(
        self,
        head: RequestHead,
        principal: Principal | None,
        verdict: Verdict,
        revision: str,
        now: float,
        destination: str = "",
    ) -> None:
        self.head: Final = head
        self.principal: Final = principal
        self.verdict: Final = verdict
        self.revision: Final = revision
        """Of the snapshot that it was taken under."""
        self.now: Final = now
        """Seconds since the epoch."""
        self.destination: Final = destination
        """Where the packet was bound for, as `decide` was told."""

    def parts(self) -> tuple[object, ...]:
        return self.head, self.principal, self.verdict, self.revision, self.now, self.destination
