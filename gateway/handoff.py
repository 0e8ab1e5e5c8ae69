"""The record of one handoff, whatever became of it.  Pure.

The data plane makes one `Handoff` per request and hands it to telemetry; field names are those of the access log.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum

import msgspec


class Outcome(Enum):
    """How a handoff ended."""

    COMPLETED = "completed"
    REFUSED = "refused"
    FAILED = "failed"
    """The agent, or the way to it, broke."""
    CANCELLED = "cancelled"
    """The caller went away first."""
    REVOKED = "revoked"
    """It was under way when policy, a revocation, or the end of the caller's certificate took its permission back."""
    OPEN = "open"
    """It has not ended yet: in the flight recorder only, of what is long under way."""


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One agent's turn that came to nothing; times in milliseconds since the request's head was read."""

    agent: str
    cause: str
    """How it failed, a value of `gateway.proxy.retries.Cause`."""
    asked_ms: float
    """When a connection to it was asked for."""
    ended_ms: float
    sent_ms: float = 0.0
    """When the request's head was on its way; 0 when it never was."""


class Handoff(msgspec.Struct, frozen=True, omit_defaults=True, rename={"caller": "from"}):
    """What happened to one packet; empty values are left out of the log."""

    time: datetime
    """When the request's head was read, UTC."""
    outcome: Outcome
    flight_id: str = ""
    conversation: str = ""
    task: str = ""
    parent: str = ""
    caller: str = ""
    signer: str = ""
    """Whose signature the packet carried, verified."""
    capability: str = ""
    agent: str = ""
    reason: str = ""
    detail: str = ""
    policy: str = ""
    rule: str = ""
    revision: str = ""
    """Of the policies that had the last word."""
    shadow: str = ""
    """What the shadow policies would have changed."""
    listener: str = ""
    protocol: str = ""
    method: str = ""
    authority: str = ""
    path: str = ""
    status: int = 0
    attempts: int = 0
    failed: tuple[Attempt, ...] = ()
    """The attempts before the last one."""
    brokered: str = ""
    """The documents whose secrets the agent was given, by name."""
    usage: str = ""
    """What was spent, as the agent says, or as it was read from its answer where a budget was reserved."""
    reserved: str = ""
    """What was taken for it out of the caller's budget before the agent was asked."""
    approval: str = ""
    """What came of the approvals that rules asked for: by whom, after how long, and under which id."""
    repeated: bool = False
    """The answer is that of the packet's first time; no agent was asked."""
    bytes_in: int = 0
    bytes_out: int = 0
    duration_ms: float = 0.0
    """From the head's arrival to the exchange's end."""
    waited_ms: float = 0.0
    """How long the request had waited for its turn when its head was read, which is no part of the other times."""
    gateway_ms: float = 0.0
    """The gateway's own work before the request was on its way (or refused)."""
    asked_ms: float = 0.0
    """From the head's arrival until a connection to the last agent was asked for; so are the next two."""
    sent_ms: float = 0.0
    """Until the request's head was on its way to it."""
    answered_ms: float = 0.0
    """Until the head of its final answer was there."""
    trace_id: str = ""
    lineage: tuple[str, ...] = ()
    """The principals that the work has passed through, oldest first, `caller` last; of work that is handed on under
    a credential, as are the next two."""
    root: str = ""
    """The id of the packet that the work began with."""
    credential: str = ""
    """The id of the handoff credential that the agent was given."""
    destination: str = ""
    """Where the caller's connection was going when it was redirected to the gateway, where the listener asks."""
