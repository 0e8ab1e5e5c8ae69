"""How much the gateway takes on, and what happens beyond it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from gateway.documents import Duration, Spec
from gateway.policy.rate import Rate, parse_rate


class OverloadSpec(Spec):
    """Overload; every field has a default."""

    turn_s: Annotated[Duration, Field(alias="turn", gt=0)] = 0.001
    """What one turn of the event loop spends on new requests, at most; the others wait for the next turn."""
    target_wait_s: Annotated[Duration, Field(alias="targetWait", gt=0)] = 0.02
    """How long requests may wait so for longer than a moment, in processor time of the event loop.  While they wait for
    longer, one after the other gets 503 overloaded."""
    max_wait_s: Annotated[Duration, Field(alias="maxWait", gt=0)] = 1.0
    """The same for any one of them, even in a burst; then 503 overloaded."""
    max_waiting: int = Field(default=144, ge=1)
    """Requests that wait so; beyond it all that wait on one connection, of the caller with the most, get 503.  After
    ten quiet seconds eight times as many may, once, for those that begin many things at a time."""
    max_in_flight_per_principal: int = Field(default=10_000, ge=1)
    """A caller's requests under way, over all its connections; beyond it 429 rate-limited."""
    rate_per_principal: Annotated[Rate, BeforeValidator(parse_rate)] | None = None
    """A caller's requests, whatever policies say; beyond it 429 rate-limited."""
    max_memory_bytes: int | None = Field(default=None, ge=1024 * 1024)
    """Without one, the limit of the cgroup, or what the machine has.  From 80 % of it connections are not kept alive,
    from 90 % requests get 503 overloaded, from 95 % connections are not accepted."""
    max_lag_s: Annotated[Duration, Field(alias="maxLag", gt=0)] = 2.0
    """How late the event loop may be, smoothed.  From 20 % of it connections are not kept alive, from 50 % requests get
    503 overloaded, from 100 % connections are not accepted."""
