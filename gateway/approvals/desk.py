"""The desk: what waits, who may answer, and what they answered."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from enum import Enum
from typing import Final, NamedTuple

import msgspec

from gateway.approvals.spec import ApprovalsSpec
from gateway.policy import Ask

WAIT_BUCKETS_S: Final = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
MAX_REMEMBERED: Final = 10_000
"""Approvals of conversations; beyond it the oldest are forgotten, and asked for anew."""


class Outcome(Enum):
    """What became of what was asked."""

    APPROVED = "approved"
    REMEMBERED = "remembered"
    """It had been approved for the conversation."""
    DENIED = "denied"
    TIMED_OUT = "timed-out"
    WITHDRAWN = "withdrawn"
    """The packet was over before somebody answered."""
    FULL = "full"
    """Too much waited already."""


class Scope(Enum):
    """What an approval counts for."""

    PACKET = "packet"
    CONVERSATION = "conversation"
    """Also for what the caller asks of the same rule and capabilities in the conversation, for a time."""


class Standing(Enum):
    """What became of a decision."""

    DONE = "done"
    UNKNOWN = "unknown"
    """Nothing of that id waits, or it waits no more."""
    NO_APPROVER = "no-approver"
    """The rule names others."""
    OWN = "own"
    """Nobody answers what they ask themselves."""
    NO_CONVERSATION = "no-conversation"
    """The packet is of none, so that an approval cannot count for one."""


class Waiting(msgspec.Struct, frozen=True, omit_defaults=True, rename={"caller": "from"}):
    """What an approver is told of a packet that waits; nothing of what is in it."""

    id: str
    """Of what is asked, not of the packet."""
    time: datetime
    """Since when it waits, UTC."""
    until: datetime
    """Then it is refused."""
    policy: str
    rule: str
    caller: str
    capability: str
    agent: str
    """Where it would go."""
    agent_capabilities: tuple[str, ...]
    """All that the agent offers."""
    flight_id: str
    reason: str = ""
    """What the rule says to the approver."""
    signer: str = ""
    conversation: str = ""
    task: str = ""
    parent: str = ""
    approvers: tuple[str, ...] = ()
    """Who may answer; nobody named is every operator, and the webhook."""


class Decision(NamedTuple):
    """What somebody decided."""

    approve: bool
    by: str
    """An operator's name, or ``webhook``."""
    why: str = ""
    scope: Scope = Scope.PACKET
    said_by: str = ""
    """Whom a webhook names."""

    @property
    def who(self) -> str:
        """For the record."""
        return f"{self.by} ({self.said_by})" if self.said_by else self.by


class Answered(msgspec.Struct, frozen=True):
    """What became of one thing that was asked of a packet."""

    id: str
    rule: str
    """As ``policy/rule``."""
    outcome: Outcome
    waited_s: float
    by: str = ""
    why: str = ""

    @property
    def given(self) -> bool:
        """Whether the packet may go on."""
        return self.outcome in (Outcome.APPROVED, Outcome.REMEMBERED)

    @property
    def text(self) -> str:
        """For the record, on one line."""
        by = f" by {self.by}" if self.by else ""
        when = " for the conversation" if self.outcome is Outcome.REMEMBERED else f" after {self.waited_s:.1f} s"
        what = "approved" if self.given else self.outcome.value
        why = f": {' '.join(self.why.split())}" if self.why else ""
        return f"{self.rule} {what}{by}{when}, id {self.id}{why}"


class _Asked(NamedTuple):
    ask: Ask
    waiting: Waiting
    since: float
    answer: Callable[[Answered], None]


class _Kept(NamedTuple):
    """An approval for a conversation."""

    id: str
    by: str
    who: str
    until: float


_Key = tuple[str, str, str, str, str]


def _key(waiting: Waiting) -> _Key:
    return (
        f"{waiting.policy}/{waiting.rule}",
        waiting.caller,
        waiting.signer,
        waiting.conversation,
        waiting.capability,
    )


class Desk:
    """Has what waits, and what is approved for conversations."""

    def __init__(self, spec: ApprovalsSpec) -> None:
        self._spec = spec
        self._asked: dict[str, _Asked] = {}
        self._by_caller: Counter[str] = Counter()
        self._kept: dict[_Key, _Kept] = {}
        """The oldest first."""
        self.counts = dict.fromkeys(Outcome, 0)
        self.waits = [0] * (len(WAIT_BUCKETS_S) + 1)
        """How often something waited no longer than each of `WAIT_BUCKETS_S` and longer than the one before."""
        self.waited_s = 0.0
        """Altogether."""

    def __len__(self) -> int:
        """How much waits."""
        return len(self._asked)

    @property
    def waiting(self) -> list[Waiting]:
        """The oldest first."""
        return [asked.waiting for asked in self._asked.values()]

    def ask(self, ask: Ask, waiting: Waiting, now: float, answer: Callable[[Answered], None]) -> Answered | None:
        """Have somebody asked; what is known at once, or else `answer` is told once.

        Args:
            ask: what the rule asks.
            waiting: what approvers are told.
            now: seconds since the epoch; so are those of the other methods.
            answer: called from `decide` or `give_up`.

        """
        kept = self._remembered(ask, waiting, now)
        if kept is not None:
            return self._counted(Answered(kept.id, ask.name, Outcome.REMEMBERED, 0.0, kept.who))
        spec, caller = self._spec, waiting.caller
        if len(self._asked) >= spec.max_waiting or self._by_caller[caller] >= spec.max_waiting_per_caller:
            return self._counted(Answered(waiting.id, ask.name, Outcome.FULL, 0.0))
        self._asked[waiting.id] = _Asked(ask, waiting, now, answer)
        self._by_caller[caller] += 1
        return None

    def decide(self, id_: str, decision: Decision, now: float) -> Standing:
        """Somebody has decided."""
        asked = self._asked.get(id_)
        if asked is None:
            return Standing.UNKNOWN
        if not asked.ask.takes(decision.by):
            return Standing.NO_APPROVER
        waiting = asked.waiting
        if decision.by in (waiting.caller, waiting.signer):
            return Standing.OWN
        if decision.approve and decision.scope is Scope.CONVERSATION:
            if not waiting.conversation:
                return Standing.NO_CONVERSATION
            self._keep(_key(waiting), _Kept(id_, decision.by, decision.who, now + self._spec.remember_s))
        outcome = Outcome.APPROVED if decision.approve else Outcome.DENIED
        self._end(asked, outcome, now, decision.who, decision.why)
        return Standing.DONE

    def give_up(self, id_: str, outcome: Outcome, now: float) -> None:
        """Nobody has answered in time, or it is too late for other reasons."""
        asked = self._asked.get(id_)
        if asked is not None:
            self._end(asked, outcome, now)

    def _end(self, asked: _Asked, outcome: Outcome, now: float, by: str = "", why: str = "") -> None:
        waiting = asked.waiting
        del self._asked[waiting.id]
        self._by_caller[waiting.caller] -= 1
        if not self._by_caller[waiting.caller]:
            del self._by_caller[waiting.caller]
        waited_s = max(0.0, now - asked.since)
        self.waits[bisect_left(WAIT_BUCKETS_S, waited_s)] += 1
        self.waited_s += waited_s
        asked.answer(self._counted(Answered(waiting.id, asked.ask.name, outcome, waited_s, by, why)))

    def _counted(self, answered: Answered) -> Answered:
        self.counts[answered.outcome] += 1
        return answered

    def _remembered(self, ask: Ask, waiting: Waiting, now: float) -> _Kept | None:
        if not waiting.conversation:
            return None
        key = _key(waiting)
        kept = self._kept.get(key)
        if kept is None:
            return None
        # Policy may have changed since: whoever approved must still be one who may.
        if kept.until <= now or not ask.takes(kept.by):
            del self._kept[key]
            return None
        return kept

    def _keep(self, key: _Key, kept: _Kept) -> None:
        self._kept.pop(key, None)
        self._kept[key] = kept
        if len(self._kept) > MAX_REMEMBERED:
            del self._kept[next(iter(self._kept))]
