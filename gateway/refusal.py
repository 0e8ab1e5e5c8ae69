"""Why a packet was not handed on, and how its sender is told.  Pure.

Enters: a `Refusal`.  Leaves: a response head and body (RFC 9457 problem+json, or gRPC trailers-only).
The one place where reasons, URNs, statuses and gRPC codes stand together.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from gateway.messages import Fields, ResponseHead
from gateway.packet import fields as names

URN_PREFIX = "urn:phoenixflight:"


class _Answer(NamedTuple):
    slug: str
    status: int
    title: str
    grpc_status: int
    """https://grpc.io/docs/guides/status-codes/"""


class Reason(_Answer, Enum):
    """The closed set of reasons; each has a stable URN, an HTTP status, a title and a gRPC status."""

    MALFORMED_PACKET = _Answer("malformed-packet", 400, "The packet is malformed", 3)
    MALFORMED_REGISTRATION = _Answer("malformed-registration", 400, "The registration is malformed", 3)
    CONTEXT_MALFORMED = _Answer("context-malformed", 400, "The context is malformed", 3)
    CONTEXT_MISSING = _Answer("context-missing", 400, "The packet refers to no context", 3)
    IDENTITY_REQUIRED = _Answer("identity-required", 401, "The caller has no identity", 16)
    SIGNATURE_INVALID = _Answer("signature-invalid", 401, "The packet's signature is missing or does not hold", 16)
    CREDENTIAL_INVALID = _Answer("credential-invalid", 401, "The handoff credential does not hold", 16)
    DENIED_BY_POLICY = _Answer("denied-by-policy", 403, "A policy denies this packet", 7)
    NO_POLICY_ALLOWS = _Answer("no-policy-allows", 403, "No policy allows this packet", 7)
    CREDENTIAL_INSUFFICIENT = _Answer("credential-insufficient", 403, "The handoff credential does not cover this", 7)
    REVOKED = _Answer("revoked", 403, "What this is part of is revoked", 7)
    DESTINATION_REFUSED = _Answer("destination-refused", 403, "The packet may not go where it was bound for", 7)
    REGISTRATION_DENIED = _Answer("registration-denied", 403, "No policy allows this registration", 7)
    APPROVAL_DENIED = _Answer("approval-denied", 403, "An approver denied this packet", 7)
    CAPABILITY_UNKNOWN = _Answer("capability-unknown", 404, "No agent offers this capability", 12)
    CONTEXT_UNKNOWN = _Answer("context-unknown", 404, "There is no such context for you", 5)
    NOT_REGISTERED = _Answer("not-registered", 404, "You have no such registration", 5)
    METHOD_NOT_ALLOWED = _Answer("method-not-allowed", 405, "The method is not allowed here", 12)
    REQUEST_TIMEOUT = _Answer("request-timeout", 408, "The request did not come in time", 4)
    NAME_TAKEN = _Answer("name-taken", 409, "The name is taken", 6)
    REPLAYED = _Answer("replayed", 409, "The packet was accepted before", 6)
    IN_FLIGHT = _Answer("in-flight", 409, "The packet is under way", 10)
    ID_CONFLICT = _Answer("id-conflict", 409, "Another packet has this id", 6)
    OUTCOME_UNKNOWN = _Answer("outcome-unknown", 409, "What came of the packet is unknown", 9)
    BODY_TOO_LARGE = _Answer("body-too-large", 413, "The body is too large", 8)
    CONTEXT_TOO_LARGE = _Answer("context-too-large", 413, "The context is too large", 8)
    BUDGET_EXHAUSTED = _Answer("budget-exhausted", 429, "The budget is exhausted", 8)
    RATE_LIMITED = _Answer("rate-limited", 429, "The rule's rate is used up", 8)
    TOO_MANY_REGISTRATIONS = _Answer("too-many-registrations", 429, "There are too many registrations", 8)
    CONTEXT_QUOTA = _Answer("context-quota", 429, "You keep too many contexts", 8)
    HEADERS_TOO_LARGE = _Answer("headers-too-large", 431, "The header section is too large", 8)
    TUNNEL_REFUSED = _Answer("tunnel-refused", 501, "What is done once takes no tunnel", 12)
    UPSTREAM_RESET = _Answer("upstream-reset", 502, "The agent broke off", 14)
    UPSTREAM_MALFORMED = _Answer("upstream-malformed", 502, "The agent's answer is malformed", 13)
    UPSTREAM_UNIDENTIFIED = _Answer("upstream-unidentified", 502, "The agent's identity is not verified", 9)
    SECRET_UNAVAILABLE = _Answer("secret-unavailable", 503, "The agent's secret is not to be had", 14)
    NO_ELIGIBLE_AGENT = _Answer("no-eligible-agent", 503, "No eligible agent is ready", 14)
    OVERLOADED = _Answer("overloaded", 503, "The gateway is overloaded", 14)
    NOT_RECORDED = _Answer("not-recorded", 503, "The gateway cannot record", 14)
    DRAINING = _Answer("draining", 503, "The gateway is draining", 14)
    DEADLINE_EXCEEDED = _Answer("deadline-exceeded", 504, "The packet's time is up", 4)
    APPROVAL_TIMEOUT = _Answer("approval-timeout", 504, "Nobody approved the packet in time", 4)
    HOPS_EXHAUSTED = _Answer("hops-exhausted", 508, "The work may be handed on no further", 9)
    LINEAGE_LOOP = _Answer("lineage-loop", 508, "The work would go round in a loop", 9)
    INTERNAL = _Answer("internal", 500, "The gateway failed to decide", 13)

    @property
    def urn(self) -> str:
        """The problem ``type`` (RFC 9457 section 3.1.1)."""
        return URN_PREFIX + self.slug


class Refusal(msgspec.Struct, frozen=True):
    """A refusal: the reason, and what a person should change."""

    reason: Reason
    detail: str
    policy: str = ""
    rule: str = ""
    retry_after_s: int = 0


class _Problem(msgspec.Struct, omit_defaults=True):
    type: str
    title: str
    status: int
    detail: str
    flight_id: str = ""
    policy: str = ""
    revision: str = ""


_encode = msgspec.json.Encoder().encode
GRPC_CONTENT_TYPE = b"application/grpc"


def grpc_fields(refusal: Refusal) -> Fields:
    """The status with which a gRPC call ends."""
    reason = refusal.reason
    message = quote(f"{reason.urn}: {refusal.detail}", safe=" :,.;'/()\"=-")  # grpc-message is percent-encoded
    return [(b"grpc-status", b"%d" % reason.grpc_status), (b"grpc-message", message.encode("ascii"))]


def problem(refusal: Refusal, flight_id: str, revision: str = "") -> bytes:
    """The problem document (RFC 9457), on one line.

    Args:
        refusal: what to say.
        flight_id: the packet's id, empty when it had none yet.
        revision: the snapshot's revision that decided, empty when none did.

    """
    reason = refusal.reason
    return _encode(
        _Problem(
            type=reason.urn,
            title=reason.title,
            status=reason.status,
            detail=refusal.detail,
            flight_id=flight_id,
            policy=refusal.policy,
            revision=revision,
        )
    )


def answer(refusal: Refusal, *, content_type: bytes, flight_id: str, revision: str) -> tuple[ResponseHead, bytes]:
    """The response to a refused request.

    Args:
        refusal: what to say.
        content_type: the request's content type; gRPC callers get a trailers-only answer.
        flight_id: as for `problem`.
        revision: as for `problem`.

    """
    fields: Fields = []
    if flight_id:
        fields.append((names.ID, names.sf_string(flight_id)))
    if refusal.retry_after_s:
        fields.append((b"retry-after", b"%d" % refusal.retry_after_s))
    if content_type.startswith(GRPC_CONTENT_TYPE):
        # gRPC over HTTP/2: "Trailers-Only" is one header block.
        fields += [(b"content-type", GRPC_CONTENT_TYPE), *grpc_fields(refusal)]
        return ResponseHead(200, fields), b""
    body = problem(refusal, flight_id, revision)
    fields += [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
    ]
    return ResponseHead(refusal.reason.status, fields), body
