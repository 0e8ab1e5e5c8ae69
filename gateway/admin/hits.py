"""How often each rule had the last word, since the gateway started."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from gateway.handoff import Handoff
from gateway.refusal import Reason
from gateway.snapshot import Shadow

MAX_RULES: Final = 20_000
"""Counted at a time, of policies in force and before; beyond it all begin anew."""
_NOTHING_ALLOWS = Reason.NO_POLICY_ALLOWS.slug


class Hit:
    """One rule's."""

    __slots__ = ("count", "last", "shadow")

    def __init__(self) -> None:
        self.count = 0
        self.shadow = 0
        """Packets that a shadow policy's rule would have made come out otherwise, with the other shadow rules."""
        self.last: datetime | None = None


class Hits:
    """Counted as handoffs end, on the event loop."""

    def __init__(self) -> None:
        self._rules: dict[tuple[str, str], Hit] = {}
        self._shadow: dict[str, Hit] = {}
        self.default_refusals = 0
        """Packets that no rule spoke for."""

    def add(self, handoff: Handoff, shadow: Shadow | None) -> None:
        """A handoff has ended."""
        if handoff.policy:
            key = handoff.policy, handoff.rule
            hit = self._rules.get(key)
            if hit is None:
                if len(self._rules) >= MAX_RULES:
                    self._rules.clear()
                hit = self._rules[key] = Hit()
            hit.count += 1
            hit.last = handoff.time
        elif handoff.reason == _NOTHING_ALLOWS:
            self.default_refusals += 1
        if shadow is not None:
            for rule in shadow.rules:
                self._count_shadow(rule, handoff.time)

    def _count_shadow(self, rule: str, at: datetime) -> None:
        hit = self._shadow.get(rule)
        if hit is None:
            if len(self._shadow) >= MAX_RULES:
                self._shadow.clear()
            hit = self._shadow[rule] = Hit()
        hit.shadow += 1
        hit.last = at

    def of(self, policy: str, rule: str) -> tuple[int, int, datetime | None]:
        """How often the rule decided, how often it would have, in shadow, and when last."""
        hit, shadow = self._rules.get((policy, rule)), self._shadow.get(f"{policy}/{rule}")
        lasts = [each.last for each in (hit, shadow) if each is not None and each.last is not None]
        return hit.count if hit else 0, shadow.shadow if shadow else 0, max(lasts, default=None)
