"""Which capabilities are done once, and what that may cost."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from gateway.documents import Duration, ErrorAt, Spec
from gateway.policy.patterns import CapabilityPattern, parse_capability_pattern


class Twins(Enum):
    """What becomes of a packet whose twin is under way."""

    WAIT = "wait"
    """It waits for the twin's answer, for a time."""
    REFUSE = "refuse"
    """It is refused, 409 in-flight."""


class LedgerSpec(Spec):
    """The ledger; every field has a default, and without capabilities there is none."""

    capabilities: tuple[Annotated[CapabilityPattern, BeforeValidator(parse_capability_pattern)], ...] = ()
    """Packets that ask for one of these are done once."""
    twins: Twins = Twins.WAIT
    """What becomes of a packet whose twin is under way."""
    wait_s: Annotated[Duration, Field(alias="wait", gt=0)] = 30.0
    """How long a twin waits at most; then it is refused, 409 in-flight."""
    remember_s: Annotated[Duration, Field(alias="remember", gt=0)] = 3600.0
    """From a packet's end until it is forgotten, and would be done anew."""
    max_body: int = Field(default=1024 * 1024, ge=1)
    """Bytes of a packet's body, which is held until it is whole; beyond it 413."""
    max_held: int = Field(default=64 * 1024 * 1024, ge=1)
    """Bytes of all bodies that are held; beyond it 503 overloaded."""
    max_answer: int = Field(default=1024 * 1024, ge=1)
    """Bytes of an answer that is kept; what came of a packet with a larger one is unknown to the ledger."""
    max_bytes: int = Field(default=256 * 1024 * 1024, ge=1024)
    """Bytes that the ledger takes in this process; beyond it 503 overloaded."""
    capacity: int = Field(default=100_000, ge=1)
    """Packets that the ledger of this process keeps in mind; beyond it 503 overloaded."""
    lease_s: Annotated[Duration, Field(alias="lease", ge=1)] = 15.0
    """In Redis: how long a replica may be silent before what it had under way is taken for lost."""

    @model_validator(mode="after")
    def _bodies_fit(self) -> Self:
        if self.max_held < self.max_body:
            raise ErrorAt("one body of maxBody must fit; expected maxBody or more", "maxHeld")
        return self
