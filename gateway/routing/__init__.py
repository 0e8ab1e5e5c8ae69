"""Which agent: members, the consistent-hash ring, bounded load, and the walk along it.  Pure.

Enters: agents, a key, and what is under way.  Leaves: an agent, and the next ones should it fail.
Knows nothing of policies, packets, sockets or the clock.
"""

from gateway.routing.agent import Agent, AgentState, Protocol
from gateway.routing.load import DEFAULT_C, Load, pick, pick_other
from gateway.routing.ring import DEFAULT_POINTS, MIN_POINTS, Ring

__all__ = [
    "DEFAULT_C",
    "DEFAULT_POINTS",
    "MIN_POINTS",
    "Agent",
    "AgentState",
    "Load",
    "Protocol",
    "Ring",
    "pick",
    "pick_other",
]
