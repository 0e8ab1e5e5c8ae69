"""What is kept of a packet: the decision, what it was made on, and what became of it.  Pure.

Enters: a `Handoff` and the decision that it began with.  Leaves: a `Record` as one JSON object; and of a `Record`,
what `gateway.recording` needs to decide the packet anew.  What of a packet may be kept is said there: no credential,
signature, query or body ever stands in a record.
"""

from __future__ import annotations

import msgspec

from gateway.handoff import Handoff
from gateway.recorded import Held

MAX_ELIGIBLE = 16
"""Names of agents in a record; there may be more of them, and their number is told."""


class Judged(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The decision, where it is not told by the handoff: that may have gone to another agent, or been refused later."""

    allow: bool
    scheme: str = ""
    protocol: str = ""
    """Of an extended CONNECT."""
    fields: list[tuple[str, str]] = []
    """Those of `gateway.recorded.FIELDS`, as they came."""
    covered: tuple[str, ...] = ()
    """What the signature covers."""
    digest: bool = False
    agent: str = ""
    """The ring's first choice, where the packet went to another; so are the next four: as decided, where in the end
    it was otherwise."""
    reason: str = ""
    policy: str = ""
    rule: str = ""
    revision: str = ""
    held: Held | None = None
    """What the decision read of the handoff credential that came with it."""


class Record(Handoff, frozen=True, omit_defaults=True, kw_only=True, rename={"caller": "from"}):
    """A handoff, and what it was decided on; texts from the wire are latin-1, so that each byte is one character.

    With the outcome `Outcome.OPEN` it tells of a packet that is still under way; another one follows at its end.
    """

    decided: Judged
    eligible: tuple[str, ...] = ()
    """The agents that were ready and that policy admits, at most `MAX_ELIGIBLE` of them."""
    eligible_count: int = 0
    """How many there were."""
    content_digest: str = ""
    """Of the payload, as its sender says; what came was held against it."""

    @property
    def budget(self) -> str:
        """What was left to spend, as the packet says."""
        return self._field("flight-budget")

    @property
    def timeout(self) -> str:
        """The milliseconds that were left, as the packet says."""
        return self._field("flight-timeout")

    def _field(self, name: str) -> str:
        return ", ".join(value for each, value in self.decided.fields if each == name)


record_in = msgspec.json.Decoder(Record).decode
"""The `Record` that a text is.

Raises:
    msgspec.DecodeError: it is none.

"""


class Addition(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What a `Record` has beyond its handoff, in the order in which it is written."""

    decided: Judged
    eligible: tuple[str, ...] = ()
    eligible_count: int = 0
    content_digest: str = ""
