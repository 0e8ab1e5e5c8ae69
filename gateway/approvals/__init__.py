"""Packets that wait for somebody to approve them, and what was decided.

Enters: what a rule asks, facts of a packet, decisions, the time.  Leaves: what waits, and `Answered`.
Knows nothing of rings, exchanges or sockets, and never a payload.
"""

from gateway.approvals.desk import Answered, Decision, Desk, Outcome, Scope, Standing, Waiting
from gateway.approvals.spec import ApprovalsSpec, WebhookSpec

__all__ = [
    "Answered",
    "ApprovalsSpec",
    "Decision",
    "Desk",
    "Outcome",
    "Scope",
    "Standing",
    "Waiting",
    "WebhookSpec",
]
