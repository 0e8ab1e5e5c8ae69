"""Stages: what a packet whose rule sets terms passes between the gate and its agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from gateway.handoff import Outcome
from gateway.refusal import Refusal

if TYPE_CHECKING:
    from gateway.proxy.exchange import Exchange


class Stage(Protocol):
    """One of them; each is entered once for a packet, in the order of `DataPlane.stages`."""

    def enter(self, exchange: Exchange, answer: Callable[[Refusal | None], None]) -> None:
        """Whether the packet may go on: `answer` is told once, before this returns or later, why not, or ``None``."""

    def leave(self, exchange: Exchange, outcome: Outcome) -> None:
        """A packet that has entered is over, however far it got; `answer` may not have been told yet."""
