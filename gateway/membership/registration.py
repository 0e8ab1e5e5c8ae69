"""A registration: what an agent asks for, and what was granted to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from gateway.documents import Document, DocumentError, Duration, ErrorAt, Name, Spec
from gateway.identity import SpiffeId
from gateway.membership.file import Capability, ContextPath, parse_address
from gateway.policy.membership import MIN_LEASE_S, Admitting, Application
from gateway.policy.patterns import CapabilityPattern
from gateway.routing import Agent, AgentState, Protocol

DEFAULT_LEASE_S: Final = 30.0
DEFAULT_DRAIN_S: Final = 30.0
MAX_DRAIN_S: Final = 600.0
MAX_CAPABILITIES: Final = 256
MAX_LABELS: Final = 64
RENEWALS_PER_LEASE: Final = 3
"""So that one may be lost, and another late."""


def _over_tls(protocol: Protocol) -> Protocol:
    if protocol is Protocol.H2C:
        raise ValueError("h2c is plaintext and can show no identity; use h2 or http/1.1")
    return protocol


class RegistrationBody(Spec):
    """What ``PUT /members/NAME`` says."""

    address: Annotated[tuple[str, int], BeforeValidator(parse_address)]
    capabilities: Annotated[tuple[Capability, ...], Field(max_length=MAX_CAPABILITIES)] = ()
    agent_card: bool = Field(default=False, strict=True)
    """Whether the A2A agent card at the address names capabilities, too."""
    trust: float | None = Field(default=None, ge=0, le=1, strict=True)
    """Left out, the most that the rule allows."""
    labels: Annotated[dict[str, str], Field(max_length=MAX_LABELS)] = {}
    protocol: Annotated[Protocol, AfterValidator(_over_tls)] = Protocol.HTTP1
    zone: str = Field(default="", max_length=63, pattern=r"^[A-Za-z0-9._-]*$")
    context_path: ContextPath = ""
    """See `Agent.context_path`."""
    lease_s: Annotated[Duration, Field(alias="lease", ge=MIN_LEASE_S)] = DEFAULT_LEASE_S

    @model_validator(mode="after")
    def _means_an_agent(self) -> RegistrationBody:
        if self.address[1] == 0:
            raise ErrorAt("nobody can be reached on port 0", "address")
        if not (self.capabilities or self.agent_card):
            raise ErrorAt("name at least one, or set agentCard to true", "capabilities")
        return self


class Registration(msgspec.Struct, frozen=True):
    """A registration that was granted; all of it can be told to another replica."""

    name: str
    owner: str
    """The SPIFFE id of the principal who registered it, which its certificate must show."""
    host: str
    port: int
    capabilities: tuple[str, ...]
    """Sorted."""
    agent_card: bool
    trust: float
    labels: tuple[tuple[str, str], ...]
    protocol: Protocol
    zone: str
    lease_s: float
    """How long it lives without being renewed."""
    rule: str
    """The rule that admits it, as ``policy/rule``."""
    allowed: tuple[str, ...]
    """The rule's patterns of capabilities, which the agent card is held against."""
    draining: bool = False
    """It takes no new packets, and goes when its time is over."""
    context_path: str = ""


def read_body(body: bytes) -> RegistrationBody:
    """What a request's `body` says.

    Raises:
        ValueError: it is no registration; the message names the field.

    """
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"the body is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError('the body must be a JSON object, such as {"address": "10.0.0.7:8080", "capabilities": ["a"]}')
    try:
        return Document("", content, {}).validate(RegistrationBody)
    except DocumentError as error:
        raise ValueError("; ".join(problem.message for problem in error.problems)) from None


_NAME: TypeAdapter[str] = TypeAdapter(Name)


def read_name(text: str) -> str:
    """The name of an agent.

    Raises:
        ValueError: it is none.

    """
    try:
        return _NAME.validate_python(text)
    except ValidationError as error:
        raise ValueError(f"name: {error.errors()[0]['ctx']['error']}") from None


_DURATION: TypeAdapter[float] = TypeAdapter(Duration)


def read_drain(text: str) -> float:
    """How long an agent is to be drained, in seconds.

    Raises:
        ValueError: it is no duration, or longer than `MAX_DRAIN_S`.

    """
    try:
        seconds = _DURATION.validate_python(text)
    except ValidationError as error:
        raise ValueError(f"drain: {error.errors()[0]['ctx']['error']}") from None
    if seconds > MAX_DRAIN_S:
        raise ValueError(f"drain: expected {MAX_DRAIN_S:g}s or less")
    return seconds


def application(name: str, body: RegistrationBody, peer: str) -> Application:
    """What is asked for, as policies see it."""
    return Application(
        name=name,
        host=body.address[0],
        peer=peer,
        capabilities=frozenset(body.capabilities),
        trust=body.trust,
        labels=tuple(sorted(body.labels.items())),
    )


def grant(name: str, body: RegistrationBody, owner: SpiffeId, admitting: Admitting) -> Registration:
    """What `admitting` gives to `owner`."""
    rule = admitting.spec
    host, port = body.address
    return Registration(
        name=name,
        owner=owner,
        host=host,
        port=port,
        capabilities=tuple(sorted(set(body.capabilities))),
        agent_card=body.agent_card,
        trust=rule.max_trust if body.trust is None else body.trust,
        labels=tuple(sorted(body.labels.items())),
        protocol=body.protocol,
        zone=body.zone,
        lease_s=min(body.lease_s, rule.max_lease_s),
        rule=admitting.name,
        allowed=tuple(pattern.text for pattern in rule.capabilities),
        context_path=body.context_path,
    )


def agent_of(registration: Registration, card: frozenset[str] = frozenset()) -> Agent:
    """The member that a registration makes; of what its `card` names, it has what its rule allows."""
    from_card: frozenset[str] = frozenset()
    if card:
        allowed = [CapabilityPattern(text) for text in registration.allowed]
        from_card = frozenset(name for name in card if any(pattern.matches(name) for pattern in allowed))
    return Agent(
        name=registration.name,
        host=registration.host,
        port=registration.port,
        capabilities=from_card.union(registration.capabilities),
        trust=registration.trust,
        labels=registration.labels,
        protocol=registration.protocol,
        spiffe_id=SpiffeId(registration.owner),
        state=AgentState.DRAINING if registration.draining else AgentState.READY,
        zone=registration.zone,
        context_path=registration.context_path,
    )


def told(registration: Registration, expires_in_s: float) -> Mapping[str, object]:
    """What its owner is told of it."""
    return {
        "name": registration.name,
        "state": (AgentState.DRAINING if registration.draining else AgentState.READY).value,
        "address": _address(registration.host, registration.port),
        "capabilities": registration.capabilities,
        "agentCard": registration.agent_card,
        "trust": registration.trust,
        "labels": dict(registration.labels),
        "protocol": registration.protocol.value,
        "zone": registration.zone,
        "contextPath": registration.context_path,
        "leaseSeconds": registration.lease_s,
        "renewSeconds": registration.lease_s / RENEWALS_PER_LEASE,
        "expiresInSeconds": round(expires_in_s, 3),
    }


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
