"""The verdict: what becomes of a request.  Pure."""

from __future__ import annotations

import msgspec

from gateway.authority import Credential
from gateway.messages import Fields
from gateway.packet import FlightPacket
from gateway.packet.signature import Signature
from gateway.policy import NO_EVIDENCE, Evidence
from gateway.refusal import Refusal
from gateway.routes import Route
from gateway.routing import Agent
from gateway.snapshot import Shadow


class Forward(msgspec.Struct, frozen=True, gc=False):
    """Hand the packet on."""

    packet: FlightPacket
    agent: Agent
    """The ring's first choice; a conversation's lease, or the load, may have it go to another of `route`."""
    route: Route
    fields: Fields
    """The header fields for the agent, less the trace context, which telemetry adds."""
    traceparent: bytes
    """The caller's W3C trace context, empty when it sent none."""
    evidence: Evidence
    """What was proven, for judging an open stream again."""
    signature: Signature | None
    """To be accepted once."""
    content_digest: bytes
    """What the body must match, as the field says it; empty when there is nothing to hold it against."""
    structured: bool
    """The body is an envelope, which must say what the header fields say."""
    shadow: Shadow | None
    held: Credential | None = None
    """The handoff credential that the caller showed, verified."""


class Refuse(msgspec.Struct, frozen=True, gc=False):
    """Answer the caller with `refusal`."""

    refusal: Refusal
    packet: FlightPacket | None
    """``None`` when the request is no readable packet."""
    content_type: bytes
    traceparent: bytes
    evidence: Evidence = NO_EVIDENCE
    shadow: Shadow | None = None
    held: Credential | None = None


Verdict = Forward | Refuse
