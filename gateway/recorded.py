"""A decision as it was taken, and as it is kept.  Pure."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import NamedTuple

import msgspec

from gateway.authority import Credential
from gateway.decision import Evidence
from gateway.identity import Principal
from gateway.messages import RequestHead
from gateway.packet import fields as names
from gateway.refusal import Reason

FIELDS = {
    name: name.decode("ascii")
    for name in (
        names.CAPABILITY,
        names.CONVERSATION,
        names.TASK,
        names.PARENT,
        names.TIMEOUT,
        names.BUDGET,
        names.MCP_SESSION,
        names.CONTENT_TYPE,
    )
}
"""The header fields whose values are recorded, as bytes and as text.  The id is recorded apart: it may have been
minted.  Of ``flight-context`` the digest is recorded, too."""
_JUDGED = frozenset(
    reason.slug
    for reason in (
        Reason.DENIED_BY_POLICY,
        Reason.NO_POLICY_ALLOWS,
        Reason.CAPABILITY_UNKNOWN,
        Reason.NO_ELIGIBLE_AGENT,
        Reason.LINEAGE_LOOP,
    )
)


class Held(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a decision reads of a handoff credential; it proves nothing to anybody."""

    root: str
    lineage: tuple[str, ...]
    conversation: str = ""
    capabilities: tuple[str, ...] = ()
    budget: dict[str, int] = {}


class Recorded(msgspec.Struct, frozen=True, omit_defaults=True, rename={"caller": "from"}):
    """A decision, as it is kept; texts from the wire are latin-1, so that each byte is one character."""

    time: datetime
    """UTC."""
    allow: bool
    flight_id: str = ""
    """The sender's or the gateway's; empty when the packet could not be read."""
    caller: str = ""
    """The SPIFFE id; empty for a caller without a certificate."""
    capability: str = ""
    method: str = ""
    scheme: str = ""
    authority: str = ""
    path: str = ""
    """Without the query."""
    protocol: str = ""
    """Of an extended CONNECT."""
    fields: list[tuple[str, str]] = []
    """Those of `FIELDS`, as they came, and the digest of ``flight-context``."""
    signer: str = ""
    """Whose signature was proven; so are `covered` and `digest`."""
    covered: tuple[str, ...] = ()
    digest: bool = False
    agent: str = ""
    reason: str = ""
    """Of the refusal."""
    policy: str = ""
    """Of the rule that decided; so is `rule`."""
    rule: str = ""
    revision: str = ""
    held: Held | None = None
    """The credential that came with it, verified."""
    destination: str = ""
    """Where it was bound for, if that was asked."""

    @property
    def judged(self) -> bool:
        """Whether policies and members decided; what was refused before they were asked is refused under any."""
        return self.allow or bool(self.policy) or self.reason in _JUDGED


class Flip(Enum):
    """How a packet can come out otherwise."""

    NOW_REFUSED = "allow -> refuse"
    NOW_ALLOWED = "refuse -> allow"
    OTHER_AGENT = "other agent"


class Question(NamedTuple):
    """What to ask `decide` again."""

    head: RequestHead
    principal: Principal | None
    evidence: Evidence
    held: Credential | None
    destination: str
