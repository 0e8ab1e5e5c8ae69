"""Agents from a YAML file: the embedded default."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from gateway.documents import API_VERSION, DocumentError, Metadata, Problem, Spec, single
from gateway.identity import SpiffeId, parse_spiffe_id
from gateway.routing import Agent, AgentState, Protocol

_CAPABILITY = re.compile(r"[A-Za-z][A-Za-z0-9!#$%&'+\-.^_`|~:/]*")
_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>\d{1,5})")


def parse_address(value: object) -> tuple[str, int]:
    """``host:port`` or ``[v6]:port``.

    Raises:
        ValueError: it is neither.

    """
    matched = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if matched is None or not 0 <= int(matched["port"]) <= 65535:
        raise ValueError(f"expected host:port, such as 10.0.0.7:8080 or [::1]:8080, not {value!r}")
    return matched["v6"] or matched["host"], int(matched["port"])


def _capability(value: object) -> str:
    if not isinstance(value, str) or _CAPABILITY.fullmatch(value) is None:
        raise ValueError(f"{value!r} is not a capability, such as code.execute")
    return value


class AgentSpec(Spec):
    """One agent, as a person writes it."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
    address: Annotated[tuple[str, int], BeforeValidator(parse_address)]
    capabilities: Annotated[tuple[Annotated[str, BeforeValidator(_capability)], ...], Field(min_length=1)]
    trust: float = Field(default=1.0, ge=0, le=1)
    labels: dict[str, str] = {}
    protocol: Protocol = Protocol.HTTP1
    spiffe_id: Annotated[SpiffeId, BeforeValidator(lambda text: parse_spiffe_id(str(text)))] | None = None
    state: Literal["ready", "draining"] = "ready"


class AgentListSpec(Spec):
    """The agents of a list."""

    agents: tuple[AgentSpec, ...]


class AgentList(Spec):
    """The document ``agents.yaml``."""

    api_version: Literal["phoenixflight.io/v1"] = API_VERSION
    kind: Literal["AgentList"] = "AgentList"
    metadata: Metadata
    spec: AgentListSpec


def load_agents(text: str, source: str) -> tuple[Agent, ...]:
    """The agents in the AgentList `text`, sorted by name.

    Raises:
        DocumentError: with every problem found.

    """
    document, listed = single(text, source, "AgentList", AgentList)
    agents: dict[str, Agent] = {}
    problems: list[Problem] = []
    for index, spec in enumerate(listed.spec.agents):
        here = ("spec", "agents", index)
        if spec.name in agents:
            problems.append(document.problem((*here, "name"), f"two agents are named {spec.name!r}"))
        if spec.protocol is Protocol.H2C and spec.spiffe_id is not None:
            problems.append(document.problem((*here, "spiffeId"), "h2c is plaintext and can show no identity; use h2"))
        host, port = spec.address
        agents[spec.name] = Agent(
            name=spec.name,
            host=host,
            port=port,
            capabilities=frozenset(spec.capabilities),
            trust=spec.trust,
            labels=tuple(sorted(spec.labels.items())),
            protocol=spec.protocol,
            spiffe_id=spec.spiffe_id,
            state=AgentState(spec.state),
        )
    if problems:
        raise DocumentError(problems)
    return tuple(agents[name] for name in sorted(agents))
