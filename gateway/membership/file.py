"""Agents from a YAML file: the embedded default."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple, TypeGuard

from pydantic import BeforeValidator, Field, field_validator, model_validator

from gateway.documents import API_VERSION, ErrorAt, Metadata, Name, Spec, refuse_duplicates, single
from gateway.identity import SpiffeId, parse_spiffe_id
from gateway.membership.health.spec import CheckSpec
from gateway.routing import Agent, AgentState, Protocol

_CAPABILITY = re.compile(r"[A-Za-z][A-Za-z0-9!#$%&'+\-.^_`|~:/]*")
_CONTEXT_PATH = re.compile(r"/[A-Za-z0-9!$%&'()*+,\-./:;=?@_~]{0,255}")
_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>\d{1,5})")


MAX_HOST_CHARACTERS = 253
MAX_LABEL_CHARACTERS = 63  # RFC 1035 section 2.3.4


def parse_address(value: object) -> tuple[str, int]:
    """``host:port`` or ``[v6]:port``.

    Raises:
        ValueError: it is neither.

    """
    matched = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    sound = matched is not None and _is_v6(matched["v6"] or "::") and _is_host(matched["host"])
    if matched is None or not sound or int(matched["port"]) > 65535:
        raise ValueError(f"expected host:port, such as 10.0.0.7:8080 or [::1]:8080, not {value!r}")
    return matched["v6"] or matched["host"], int(matched["port"])


def _is_v6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _is_host(text: str | None) -> bool:
    """Whether a resolver takes it: one raises what nobody expects for a label that is empty or too long."""
    return text is None or (
        len(text) <= MAX_HOST_CHARACTERS
        and all(0 < len(label) <= MAX_LABEL_CHARACTERS for label in text.removesuffix(".").split("."))
    )


def is_capability(value: object) -> TypeGuard[str]:
    """Whether `value` can be what an agent is able to do."""
    return isinstance(value, str) and _CAPABILITY.fullmatch(value) is not None


def _capability(value: object) -> str:
    if not is_capability(value):
        raise ValueError(f"{value!r} is not a capability, such as code.execute")
    return value


Capability = Annotated[str, BeforeValidator(_capability)]


def parse_context_path(value: object) -> str:
    """A path on an agent.

    Raises:
        ValueError: it is none.

    """
    if not isinstance(value, str) or _CONTEXT_PATH.fullmatch(value) is None:
        raise ValueError(f"expected a path, such as /context, not {value!r}")
    return value


ContextPath = Annotated[str, BeforeValidator(parse_context_path)]
"""Where an agent gives and takes conversations' context."""


class AgentSpec(Spec):
    """One agent, as a person writes it."""

    name: Name
    address: Annotated[tuple[str, int], BeforeValidator(parse_address)]
    capabilities: tuple[Capability, ...] = ()
    agent_card: bool = Field(default=False, strict=True)
    """Whether the A2A agent card at the address names capabilities, too."""
    trust: float = Field(default=1.0, ge=0, le=1, strict=True)
    labels: dict[str, str] = {}
    protocol: Protocol = Protocol.HTTP1
    spiffe_id: Annotated[SpiffeId, BeforeValidator(lambda text: parse_spiffe_id(str(text)))] | None = None
    state: Literal["ready", "draining"] = "ready"
    zone: str = ""
    """Where it runs, as the gateway's own ``zone`` is called."""
    context_path: ContextPath = ""
    """See `Agent.context_path`."""
    health_check: CheckSpec | None = None
    """Instead of the one that the gateway has for all."""

    @model_validator(mode="after")
    def _can_be_reached(self) -> AgentSpec:
        if self.address[1] == 0:
            raise ErrorAt("nobody can be reached on port 0", "address")
        if self.protocol is Protocol.H2C and self.spiffe_id is not None:
            raise ErrorAt("h2c is plaintext and can show no identity; use h2", "spiffeId")
        if not (self.capabilities or self.agent_card):
            raise ErrorAt("expected at least 1 item(s), or agentCard: true", "capabilities")
        return self


class AgentListSpec(Spec):
    """The agents of a list."""

    agents: tuple[AgentSpec, ...]

    @field_validator("agents")
    @classmethod
    def _names_are_unique(cls, agents: tuple[AgentSpec, ...]) -> tuple[AgentSpec, ...]:
        refuse_duplicates((agent.name for agent in agents), "agents")
        return agents


class AgentList(Spec):
    """The document ``agents.yaml``."""

    api_version: Literal["phoenixflight.io/v1"] = API_VERSION
    kind: Literal["AgentList"] = "AgentList"
    metadata: Metadata
    spec: AgentListSpec


class ListedAgents(NamedTuple):
    """The agents of a list."""

    agents: tuple[Agent, ...]
    """Sorted by name; with the capabilities that the list names, which may be none where there is a card."""
    with_card: frozenset[str]
    """The names of those whose agent cards name capabilities, too."""
    checks: Mapping[str, CheckSpec] = MappingProxyType({})
    """The health checks of those that have one of their own, by name."""


def load_listed(text: str, source: str) -> ListedAgents:
    """The agents in the AgentList `text`, and whose cards are to be read.

    Raises:
        DocumentError: with every problem found.

    """
    _, listed = single(text, source, "AgentList", AgentList)
    specs = sorted(listed.spec.agents, key=lambda spec: spec.name)
    return ListedAgents(
        tuple(map(_agent, specs)),
        frozenset(spec.name for spec in specs if spec.agent_card),
        {spec.name: spec.health_check for spec in specs if spec.health_check is not None},
    )


def load_agents(text: str, source: str) -> tuple[Agent, ...]:
    """The agents in the AgentList `text`, sorted by name, as the list has them.

    Raises:
        DocumentError: with every problem found.

    """
    return load_listed(text, source).agents


def _agent(spec: AgentSpec) -> Agent:
    host, port = spec.address
    return Agent(
        name=spec.name,
        host=host,
        port=port,
        capabilities=frozenset(spec.capabilities),
        trust=spec.trust,
        labels=tuple(sorted(spec.labels.items())),
        protocol=spec.protocol,
        spiffe_id=spec.spiffe_id,
        state=AgentState(spec.state),
        zone=spec.zone,
        context_path=spec.context_path,
    )
