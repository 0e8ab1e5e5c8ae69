"""What conditions can see: of a packet and its sender before an agent is chosen, and of each agent."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from gateway.identity import Principal, SpiffeId
from gateway.messages import Fields, RequestHead
from gateway.packet import FlightPacket
from gateway.packet import fields as names
from gateway.policy import cel
from gateway.policy.cel import Expression, Language, Variable
from gateway.routing.agent import Agent

if TYPE_CHECKING:
    from gateway.authority.credential import Credential

DEFAULT_HOPS = 8
"""``packet.hops`` of a packet whose ``flight-budget`` sets none."""

_SERVICE_ACCOUNT = re.compile(r"spiffe://[^/]+/ns/([^/]+)/sa/([^/]+)")


class Evidence(msgspec.Struct, frozen=True):
    """What is proven about a packet beyond its sender's certificate."""

    signer: SpiffeId | None = None
    """Whose signature verified."""
    covered: frozenset[bytes] = frozenset()
    """The components that it covers: field names, and derived ones such as ``@method``."""
    digest: bool = False
    """Whether there is a ``content-digest`` that the body will be held against."""


NO_EVIDENCE = Evidence()


def assumed_evidence(signer: SpiffeId | None, fields: Fields) -> Evidence:
    """The evidence for a hypothetical packet, as if `signer` had signed every one of its `fields`."""
    present = frozenset(name for name, _ in fields)
    return Evidence(signer, present if signer else frozenset(), names.CONTENT_DIGEST in present)


class PacketFacts(msgspec.Struct, frozen=True, gc=False):
    """What ``when`` is evaluated on."""

    packet: FlightPacket
    head: RequestHead
    principal: Principal
    evidence: Evidence
    now: float
    """Seconds since the epoch."""
    held: Credential | None = None
    """The handoff credential that came with it, verified."""


class AgentFacts(msgspec.Struct, frozen=True, gc=False):
    """What ``agentWhen`` is evaluated on."""

    agent: Agent
    principal: Principal


def _text(raw: bytes) -> str:
    """Any bytes, as one character each."""
    return raw.decode("latin-1")


def _hops(facts: PacketFacts) -> int:
    """How many times the work may be handed on yet, this time included, as its sender and its credential say."""
    hops = facts.packet.budget.get("hops", DEFAULT_HOPS)
    return hops if facts.held is None else min(hops, facts.held.budget.get("hops", DEFAULT_HOPS))


def _service_account(principal: Principal, part: int) -> str:
    matched = _SERVICE_ACCOUNT.fullmatch(principal.id)
    return matched[part] if matched else ""


_PRINCIPAL_VARIABLES: dict[str, Variable[PacketFacts | AgentFacts]] = {
    "principal.id": Variable(cel.STRING, lambda facts: facts.principal.id),
    "principal.trustDomain": Variable(cel.STRING, lambda facts: facts.principal.trust_domain),
    "principal.namespace": Variable(cel.STRING, lambda facts: _service_account(facts.principal, 1)),
    "principal.serviceAccount": Variable(cel.STRING, lambda facts: _service_account(facts.principal, 2)),
}

ON_PACKETS: Language[PacketFacts] = Language(
    {
        "packet.id": Variable(cel.STRING, lambda facts: facts.packet.id),
        "packet.capabilities": Variable(cel.STRINGS, lambda facts: list(facts.packet.capabilities.names)),
        "packet.conversation": Variable(cel.STRING, lambda facts: facts.packet.conversation),
        "packet.task": Variable(cel.STRING, lambda facts: facts.packet.task),
        "packet.parent": Variable(cel.STRING, lambda facts: facts.packet.parent),
        "packet.timeoutMs": Variable(cel.INT, lambda facts: facts.packet.timeout_ms),
        "packet.hops": Variable(cel.INT, _hops),
        "packet.budget": Variable(cel.STRING_TO_INT, lambda facts: dict(facts.packet.budget)),
        "packet.minTrust": Variable(cel.DOUBLE, lambda facts: facts.packet.capabilities.min_trust),
        "packet.signed": Variable(cel.BOOL, lambda facts: facts.evidence.signer is not None),
        "packet.signer": Variable(cel.STRING, lambda facts: facts.evidence.signer or ""),
        **_PRINCIPAL_VARIABLES,
        "request.method": Variable(cel.STRING, lambda facts: _text(facts.head.method)),
        "request.path": Variable(cel.STRING, lambda facts: _text(facts.head.path.partition(b"?")[0])),
        "request.authority": Variable(cel.STRING, lambda facts: _text(facts.head.authority)),
        "request.scheme": Variable(cel.STRING, lambda facts: _text(facts.head.scheme)),
        "request.protocol": Variable(cel.STRING, lambda facts: _text(facts.head.protocol)),
        "lineage": Variable(cel.STRINGS, lambda facts: list(facts.held.lineage) if facts.held else []),
        "credential.present": Variable(cel.BOOL, lambda facts: facts.held is not None),
        "credential.root": Variable(cel.STRING, lambda facts: facts.held.root if facts.held else ""),
        "credential.subject": Variable(cel.STRING, lambda facts: facts.held.subject if facts.held else ""),
        "credential.capabilities": Variable(
            cel.STRINGS, lambda facts: [each.text for each in facts.held.capabilities] if facts.held else []
        ),
        "credential.budget": Variable(cel.STRING_TO_INT, lambda facts: dict(facts.held.budget) if facts.held else {}),
        "now": Variable(cel.TIMESTAMP, lambda facts: datetime.fromtimestamp(facts.now, UTC)),
    }
)
"""The language of ``when``."""

ON_AGENTS: Language[AgentFacts] = Language(
    {
        "agent.name": Variable(cel.STRING, lambda facts: facts.agent.name),
        "agent.trust": Variable(cel.DOUBLE, lambda facts: facts.agent.trust),
        "agent.labels": Variable(cel.STRING_TO_STRING, lambda facts: dict(facts.agent.labels)),
        "agent.protocol": Variable(cel.STRING, lambda facts: facts.agent.protocol.value),
        "agent.capabilities": Variable(cel.STRINGS, lambda facts: sorted(facts.agent.capabilities)),
        **_PRINCIPAL_VARIABLES,
    }
)
"""The language of ``agentWhen``."""

_MAX_REMEMBERED = 4096


@lru_cache(maxsize=_MAX_REMEMBERED)
def packet_condition(text: str) -> Expression:
    """Compile a ``when``; the same text is compiled once.

    Raises:
        ConditionError: it is no condition on packets.

    """
    return ON_PACKETS.compile(text)


@lru_cache(maxsize=_MAX_REMEMBERED)
def agent_condition(text: str) -> Expression:
    """Compile an ``agentWhen``; the same text is compiled once.

    Raises:
        ConditionError: it is no condition on agents.

    """
    return ON_AGENTS.compile(text)
