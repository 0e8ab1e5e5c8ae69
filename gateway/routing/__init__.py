"""Which agent: members, the consistent-hash ring, and the walk along it.  Pure.

Enters: agents and a key.  Leaves: an agent, and the next ones should it fail.
Knows nothing of policies, packets, sockets or the clock.
"""

from gateway.routing.agent import Agent, AgentState, Protocol
from gateway.routing.ring import Ring

__all__ = ["Agent", "AgentState", "Protocol", "Ring"]
