"""What a packet is, once it has been read."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from gateway.messages import Fields
from gateway.value import Value

NO_BUDGET: Mapping[str, int] = MappingProxyType({})


class MalformedPacketError(ValueError):
    """A packet field that cannot be read; the message names the field and the character."""


class Capabilities(Value):
    """What the receiving agent must be able to do, all of it."""

    def __init__(self, names: tuple[str, ...], min_trust: float = 0.0) -> None:
        self.names: Final = names
        """In the caller's order, without repeats; never empty."""
        self.min_trust: Final = min_trust
        """The floor that this packet asks of the agent's trust score (0 to 1)."""
        self.label: Final = ", ".join(names)
        """The names as one text, for people and metrics."""

    def parts(self) -> tuple[object, ...]:
        return self.names, self.min_trust


class FlightPacket(Value):
    """One unit of work that moves between agents, as its header fields tell it."""

    def __init__(
        self,
        packet_id: str,
        capabilities: Capabilities,
        affinity: bytes,
        conversation: str = "",
        task: str = "",
        parent: str = "",
        timeout_ms: int = 0,
        alone: bool = False,
        budget: Mapping[str, int] = NO_BUDGET,
        context: str = "",
    ) -> None:
        self.id: Final = packet_id
        self.capabilities: Final = capabilities
        self.affinity: Final = affinity
        """What the ring hashes: the conversation, else the MCP session, else the task, else the id."""
        self.conversation: Final = conversation
        self.task: Final = task
        self.parent: Final = parent
        self.timeout_ms: Final = timeout_ms
        """Time left, in milliseconds; 0 when the packet sets none."""
        self.alone: Final = alone
        """Nothing but its id tells where it belongs: no other packet has its affinity."""
        self.budget: Final = budget
        """What its sender lets it spend, by unit: the whole numbers of ``flight-budget``."""
        self.context: Final = context
        """SHA-256 of the context that it refers to, in hexadecimal; empty when ``flight-context`` has none."""

    def parts(self) -> tuple[object, ...]:
        return (
            self.id,
            self.capabilities,
            self.affinity,
            self.conversation,
            self.task,
            self.parent,
            self.timeout_ms,
            self.alone,
            self.budget,
            self.context,
        )


class Sifted(Value):
    """A request's fields after one pass: the packet's own, and those that go on to the agent."""

    def __init__(self, flight: dict[bytes, bytes], onward: Fields) -> None:
        self.flight: Final = flight
        """Packet fields (and ``mcp-session-id``, ``content-type``, ``traceparent``) by name."""
        self.onward: Final = onward
        """Fields for the agent: the caller's, less what only the gateway may say or replaces: ``traceparent``,
        ``flight-credential``."""

    def parts(self) -> tuple[object, ...]:
        return self.flight, self.onward
