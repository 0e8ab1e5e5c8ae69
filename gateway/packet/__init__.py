"""The FlightPacket: what its fields mean on the wire.  Pure.

Enters: a `RequestHead`.  Leaves: a `FlightPacket`, and the fields that go on to the agent.
Knows nothing of policies, agents, sockets or the clock.
"""

from gateway.packet.packet import parse, sift
from gateway.packet.values import Capabilities, FlightPacket, MalformedPacketError, Sifted

__all__ = ["Capabilities", "FlightPacket", "MalformedPacketError", "Sifted", "parse", "sift"]
