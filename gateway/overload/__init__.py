"""How much the gateway takes on: who comes in, who waits, who is turned away.

Enters: callers' names, the time, readings of memory and of the event loop.  Leaves: an `Entry` for each request, a
`Level`.  Knows nothing of packets, policies, agents or sockets; only `monitor` does I/O.
"""

from gateway.overload.caps import Caps
from gateway.overload.door import Caller, Door, Entry, Visitor
from gateway.overload.levels import Level
from gateway.overload.manners import Manners, Push
from gateway.overload.monitor import Monitor
from gateway.overload.queue import FairQueue
from gateway.overload.spec import OverloadSpec

__all__ = [
    "Caller",
    "Caps",
    "Door",
    "Entry",
    "FairQueue",
    "Level",
    "Manners",
    "Monitor",
    "OverloadSpec",
    "Push",
    "Visitor",
]
