"""Whether an agent takes packets, and how large its share is: from what is observed of it.

Enters: how packets fared, who the agents are, answers to checks, the time.  Leaves: the same agents, some of them
ejected or with less reliability.  Knows nothing of packets, policies or snapshots; only `probe` and `checks` do I/O.
"""

from gateway.membership.health.health import Health
from gateway.membership.health.outliers import FAILURE_STATUSES
from gateway.membership.health.record import Reason
from gateway.membership.health.spec import CheckSpec, CheckType, HealthSpec, OutlierSpec, ReliabilitySpec, SlowStartSpec

__all__ = [
    "FAILURE_STATUSES",
    "CheckSpec",
    "CheckType",
    "Health",
    "HealthSpec",
    "OutlierSpec",
    "Reason",
    "ReliabilitySpec",
    "SlowStartSpec",
]
