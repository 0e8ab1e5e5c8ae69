"""The decision: one plain function from a request's head to a `Verdict`.  Pure.

Enters: `RequestHead`, `Principal`, `Snapshot`, the time, randomness.  Leaves: `Forward` or `Refuse`.
The data plane, ``phoenixflight explain``, replay and the benchmarks all call `decide`; nothing else decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from gateway.identity import Principal, PrincipalPattern
from gateway.messages import Fields, RequestHead
from gateway.packet import Capabilities, FlightPacket, MalformedPacketError, parse, sift
from gateway.packet import fields as names
from gateway.policy import Deny, PolicySet
from gateway.refusal import Reason, Refusal
from gateway.routing import Agent, AgentState, Ring

NO_AGENT_RETRY_AFTER_S = 1


class Route(msgspec.Struct, frozen=True):
    """A decided way for one principal and one set of capabilities: the ring, and each agent's rule."""

    ring: Ring
    grants: Mapping[str, Granted]
    """By agent name."""


class Granted(msgspec.Struct, frozen=True):
    """The rule that admits an agent, with the response field that tells the caller so."""

    policy: str
    rule: str
    decision_value: bytes
    """The value of ``flight-decision``."""


class Forward(msgspec.Struct, frozen=True, gc=False):
    """Hand the packet on to `agent`."""

    packet: FlightPacket
    agent: Agent
    route: Route
    fields: Fields
    """The header fields for the agent, less the trace context, which telemetry adds."""
    traceparent: bytes
    """The caller's W3C trace context, empty when it sent none."""


class Refuse(msgspec.Struct, frozen=True, gc=False):
    """Answer the caller with `refusal`."""

    refusal: Refusal
    packet: FlightPacket | None
    """``None`` when the request is no readable packet."""
    content_type: bytes
    traceparent: bytes


Verdict = Forward | Refuse

_Route = Route | Refusal
_MAX_ROUTES = 10_000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a decision reads, immutable, with a revision that is a hash of its content."""

    revision: str
    policies: PolicySet
    agents: tuple[Agent, ...]
    """Sorted by name."""
    trusted_hops: tuple[PrincipalPattern, ...] = ()
    routes: dict[tuple[str, Capabilities], _Route] = field(default_factory=dict, compare=False, repr=False)
    """Memo of `route`, whose answer depends on its arguments alone; emptied when it is full."""


EMPTY = Snapshot("none", PolicySet(()), ())


def decide(
    head: RequestHead,
    principal: Principal | None,
    snapshot: Snapshot,
    now: float,
    entropy: Callable[[int], int],
) -> Verdict:
    """Decide what becomes of a request.

    Args:
        head: the request as it arrived.
        principal: the authenticated caller, ``None`` for one without an identity.
        snapshot: what is in force.
        now: seconds since the epoch.
        entropy: ``random.getrandbits`` or its like; read only to mint an id.

    """
    trusted = False
    if snapshot.trusted_hops and principal is not None:
        trusted = any(pattern.matches(principal.id) for pattern in snapshot.trusted_hops)
    sifted = sift(head.fields, trusted_hop=trusted)
    flight = sifted.flight
    traceparent = flight.get(names.TRACEPARENT, b"")
    try:
        packet = parse(head, flight, lambda: uuid7(now, entropy))
    except MalformedPacketError as error:
        refusal = Refusal(Reason.MALFORMED_PACKET, str(error))
        return Refuse(refusal, None, flight.get(names.CONTENT_TYPE, b""), traceparent)
    found: _Route
    if principal is None:
        found = _ANONYMOUS
    else:
        key = (principal.id, packet.capabilities)
        remembered = snapshot.routes.get(key)
        if remembered is None:
            if len(snapshot.routes) >= _MAX_ROUTES:
                snapshot.routes.clear()
            remembered = snapshot.routes[key] = route(principal, packet.capabilities, snapshot)
        found = remembered
    if isinstance(found, Refusal):
        return Refuse(found, packet, flight.get(names.CONTENT_TYPE, b""), traceparent)
    assert principal is not None
    onward = sifted.onward
    if names.ID not in flight:
        onward.append((names.ID, names.sf_string(packet.id)))
    if names.CAPABILITY not in flight:
        onward.append((names.CAPABILITY, packet.capabilities.label.encode("ascii")))
    onward.append((names.FROM, names.sf_string(principal.id)))
    return Forward(packet, found.ring.owner(packet.affinity), found, onward, traceparent)


_ANONYMOUS = Refusal(
    Reason.IDENTITY_REQUIRED,
    "present a client certificate (an X.509-SVID with one SPIFFE URI SAN) that the gateway's trust bundle vouches for",
)


def route(principal: Principal, capabilities: Capabilities, snapshot: Snapshot) -> Route | Refusal:
    """The agents that `principal` may reach for `capabilities`, as a ring; or why there are none.

    Policy speaks first, so that a caller who may not use a capability never learns whether anybody has it.
    """
    ruling = snapshot.policies.rule_on(principal, capabilities.names)
    if isinstance(ruling, Deny):
        if ruling.grant is None:
            return Refusal(
                Reason.NO_POLICY_ALLOWS,
                f"no policy allows {principal.id} to use {ruling.capability}; ask for a rule that does, "
                "or check the spelling of the capability",
            )
        return Refusal(
            Reason.DENIED_BY_POLICY,
            f"a rule denies {ruling.capability} to {principal.id}",
            ruling.grant.policy,
            ruling.grant.rule,
        )
    wanted = frozenset(capabilities.names)
    capable = [agent for agent in snapshot.agents if wanted <= agent.capabilities]
    if not capable:
        return Refusal(
            Reason.CAPABILITY_UNKNOWN,
            f"no agent offers {capabilities.label}; check the spelling, or ask for less",
        )
    grants: dict[str, Granted] = {}
    ready: list[Agent] = []
    for agent in capable:
        grant = ruling.admits(agent)
        if grant is None or agent.trust < capabilities.min_trust:
            continue
        value = b"allow;policy=%s;revision=%s" % (
            names.sf_string(grant.policy),
            names.sf_string(snapshot.revision),
        )
        grants[agent.name] = Granted(grant.policy, grant.rule, value)
        if agent.state is AgentState.READY:
            ready.append(agent)
    if not ready:
        why = (
            "the agents that offer it are not ready; try again later"
            if grants
            else "no agent that offers it meets the trust and labels that policy or the packet asks for"
        )
        return Refusal(
            Reason.NO_ELIGIBLE_AGENT,
            f"{capabilities.label}: {why}",
            retry_after_s=NO_AGENT_RETRY_AFTER_S,
        )
    return Route(Ring(ready), grants)


def uuid7(now: float, entropy: Callable[[int], int]) -> str:
    """A time-ordered id (RFC 9562 section 5.7) from `now` in epoch seconds and 74 random bits."""
    bits = entropy(74)
    ms = int(now * 1000)
    return "%08x-%04x-7%03x-%04x-%012x" % (
        ms >> 16 & 0xFFFFFFFF,
        ms & 0xFFFF,
        bits >> 62,
        0x8000 | bits >> 48 & 0x3FFF,
        bits & 0xFFFFFFFFFFFF,
    )
