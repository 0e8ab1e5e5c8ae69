"""Handoff authority: what an agent may do with the work that it was handed, and the proof of it.

Enters: the credential that a caller shows, what policy grants, the agent that is next.  Leaves: a narrower
credential for that agent, or why there is none.  It can only narrow.  Pure: knows nothing of sockets and stores.
"""

from gateway.authority.credential import Credential
from gateway.authority.revocations import NO_REVOCATIONS, Entry, Kind, Revocations

__all__ = ["NO_REVOCATIONS", "Credential", "Entry", "Kind", "Revocations"]
