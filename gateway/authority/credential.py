"""A handoff credential, as its claims tell it once they are verified."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gateway.identity import SpiffeId
from gateway.policy.patterns import CapabilityPattern


class Credential(msgspec.Struct, frozen=True):
    """What one agent was handed: in the spirit of RFC 8693 and of transaction tokens."""

    id: str
    """``jti``: of this handing on, and of the account that its budget is spent from."""
    parent: str
    """The ``jti`` of the credential that it was narrowed from; empty for the first one."""
    root: str
    """``txn``: the id of the packet that the work began with."""
    conversation: str
    subject: SpiffeId
    """``sub``: where the work began."""
    lineage: tuple[SpiffeId, ...]
    """From ``act``: whom it has passed through, oldest first, from `subject` to whoever handed it on last."""
    audience: SpiffeId
    """``aud``: who alone may show it."""
    thumbprint: str
    """``cnf`` ``x5t#S256`` (RFC 8705 section 3.1): of the certificate that has to be shown with it."""
    capabilities: tuple[CapabilityPattern, ...]
    """``cap``: what may be asked of others."""
    budget: Mapping[str, int]
    """``bud``: what may be spent, by unit; ``hops`` is how many more times the work may be handed on."""
    expires: float
    """``exp``, seconds since the epoch."""
    key: str
    """``kid`` of the key that has signed it."""
