"""What a packet is, once it has been read."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType

import msgspec

from gateway.messages import Fields

NO_BUDGET: Mapping[str, int] = MappingProxyType({})


class MalformedPacketError(ValueError):
    """A packet field that cannot be read; the message names the field and the character."""


class Capabilities(msgspec.Struct, frozen=True, dict=True):
    """What the receiving agent must be able to do, all of it."""

    names: tuple[str, ...]
    """In the caller's order, without repeats; never empty."""
    min_trust: float = 0.0
    """The floor that this packet asks of the agent's trust score (0 to 1)."""

    @cached_property
    def label(self) -> str:
        """The names as one text, for people and metrics."""
        return ", ".join(self.names)


class FlightPacket(msgspec.Struct, frozen=True, gc=False):
    """One unit of work that moves between agents, as its header fields tell it."""

    id: str
    capabilities: Capabilities
    affinity: bytes
    """What the ring hashes: the conversation, else the MCP session, else the task, else the id."""
    conversation: str = ""
    task: str = ""
    parent: str = ""
    timeout_ms: int = 0
    """Time left, in milliseconds; 0 when the packet sets none."""
    alone: bool = False
    """Nothing but its id tells where it belongs: no other packet has its affinity."""
    budget: Mapping[str, int] = NO_BUDGET
    """What its sender lets it spend, by unit: the whole numbers of ``flight-budget``."""
    context: str = ""
    """SHA-256 of the context that it refers to, in hexadecimal; empty when ``flight-context`` has none."""


class Sifted(msgspec.Struct, frozen=True, gc=False):
    """A request's fields after one pass: the packet's own, and those that go on to the agent."""

    flight: dict[bytes, bytes]
    """Packet fields (and ``mcp-session-id``, ``content-type``, ``traceparent``) by name."""
    onward: Fields
    """Fields for the agent: the caller's, less what only the gateway may say or replaces: ``traceparent``,
    ``flight-credential``."""
