"""Trust policy: who may ask which agents for what.  Pure.

Enters: TrustPolicy documents, then a principal and capabilities.  Leaves: a `Ruling`.
Knows nothing of sockets, rings, members' whereabouts or the clock.
"""

from gateway.policy.engine import Allow, Deny, PolicySet, Ruling

__all__ = ["Allow", "Deny", "PolicySet", "Ruling"]
