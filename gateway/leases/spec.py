"""How long a conversation stays where it is, and what that may cost."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from gateway.documents import Duration, ErrorAt, Spec


class LeaseSpec(Spec):
    """Leases; every field has a default."""

    idle_s: Annotated[Duration, Field(alias="idle", gt=0)] = 300.0
    """From a conversation's last packet or open exchange until it may move."""
    remember_s: Annotated[Duration, Field(alias="remember", gt=0)] = 3600.0
    """From the same until it is forgotten; then it begins anew, at the ring's choice."""
    moves_per_s: float = Field(default=100.0, alias="movesPerSecond", gt=0)
    """How many idle conversations move, in each replica, because the ring would choose another agent."""
    capacity: int = Field(default=1_000_000, ge=1)
    """Leases in this process; beyond it those idle for longest are forgotten.  A Redis has bounds of its own."""

    @model_validator(mode="after")
    def _remembered_for_longer(self) -> Self:
        if self.remember_s < self.idle_s:
            raise ErrorAt("a conversation cannot be forgotten before it is idle; expected idle or longer", "remember")
        return self
