"""An agent endpoint, as membership knows it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from gateway.identity import SpiffeId


class Protocol(Enum):
    """What an agent speaks."""

    HTTP1 = "http/1.1"
    H2C = "h2c"
    H2 = "h2"


class AgentState(Enum):
    """Whether an agent takes packets."""

    READY = "ready"
    DRAINING = "draining"
    EJECTED = "ejected"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class Agent:
    """One endpoint that can do some capabilities."""

    name: str
    host: str
    port: int
    capabilities: frozenset[str]
    trust: float = 1.0
    """The operator's trust score, 0 to 1."""
    labels: tuple[tuple[str, str], ...] = ()
    """Sorted by key."""
    protocol: Protocol = Protocol.HTTP1
    spiffe_id: SpiffeId | None = None
    """The identity that the agent's certificate must show; with one, the connection is mTLS."""
    state: AgentState = AgentState.READY
    reliability: float = 1.0
    """What is observed of it, 0 to 1: success and speed, decayed, and how far a return from failure has come."""
    zone: str = ""
    """Where it runs (``topology.kubernetes.io/zone``); empty when nobody knows."""
    context_path: str = ""
    """Where it gives and takes the context of a conversation that moves; empty when it does neither."""

    @property
    def weight(self) -> float:
        """Its share of the ring, in proportion: trust times reliability."""
        return self.trust * self.reliability

    @property
    def endpoint(self) -> tuple[str, int, Protocol, SpiffeId | None]:
        """What a connection to it depends on."""
        return self.host, self.port, self.protocol, self.spiffe_id

    @property
    def tls(self) -> bool:
        """Whether the connection to this agent is TLS."""
        return self.protocol is Protocol.H2 or self.spiffe_id is not None
