"""Contexts: what agents of a conversation have to know, kept under its digest.

Enters: bytes with their digest, who brings them, in which conversation.  Leaves: the same bytes, for those who may read
them, as long as they are kept.  Knows nothing of packets, policies, rings and the sockets of callers.
"""

from gateway.contexts.cipher import Cipher, KeyFileError, load_keys, new_key
from gateway.contexts.contexts import Contexts, Event
from gateway.contexts.spec import ContextSpec
from gateway.contexts.store import Place, Put, Store, StoreError

__all__ = [
    "Cipher",
    "ContextSpec",
    "Contexts",
    "Event",
    "KeyFileError",
    "Place",
    "Put",
    "Store",
    "StoreError",
    "load_keys",
    "new_key",
]
