"""Handoff authority: what an agent may do with the work that it was handed, and the proof of it.

Enters: the credential that a caller shows, what policy grants, the agent that is next.  Leaves: a narrower
credential for that agent, or why there is none.  It can only narrow.  Pure: knows nothing of sockets and stores.
"""

from gateway.authority.authority import NO_AUTHORITY, Authority, invalid
from gateway.authority.credential import Credential
from gateway.authority.keys import KeyRing, load_key_ring
from gateway.authority.narrow import Terms, lineage_of
from gateway.authority.revocations import NO_REVOCATIONS, Entry, Kind, Revocations
from gateway.authority.spec import AuthoritySpec
from gateway.authority.token import CLAIMS, CredentialError

__all__ = [
    "CLAIMS",
    "NO_AUTHORITY",
    "NO_REVOCATIONS",
    "Authority",
    "AuthoritySpec",
    "Credential",
    "CredentialError",
    "Entry",
    "KeyRing",
    "Kind",
    "Revocations",
    "Terms",
    "invalid",
    "lineage_of",
    "load_key_ring",
]
