"""The clocks of an exchange: who has kept it waiting for too long.  Pure.

They are looked at about once a second, and go by how much has moved since, so that a piece of body costs nothing.  A
stream on which something moves is live, and lives as long as it likes, unless a ceiling is set.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from gateway.refusal import Reason, Refusal


@dataclass(frozen=True, slots=True)
class Clocks:
    """How long is too long, in seconds."""

    body_s: float = 30.0
    """A request's body, until its answer begins: how long nothing may come, and after how long `body_rate` counts."""
    body_rate: float = 32.0
    """Bytes a second that such a body comes with at least, on average."""
    response_s: float = 300.0
    """From the whole request, or from what the agent does not take, to the response's head."""
    idle_s: float = 300.0
    """An answer under way, or a tunnel, on which nothing moves in either direction."""
    ceiling_s: float | None = None
    """Everything, however lively."""
    keep_alive_s: float | None = None
    """After so much silence an event stream gets a comment, lest somebody on its way takes it for dead."""


class Phase(Enum):
    """Whom an exchange waits for."""

    UPLOADING = "uploading"
    """The caller is to send its body."""
    ASKED = "asked"
    """The agent is to answer, or to take more of the body."""
    OPEN = "open"
    """The answer has begun: either side may speak."""


class Watch:
    """What the clocks know of one exchange."""

    __slots__ = ("_arrived", "_clocks", "_moved", "_since", "_spoke_at", "_still_since")

    def __init__(self, clocks: Clocks, now: float, arrived: int) -> None:
        """Args: `arrived` is how many bytes of the request's body have come by `now`, in seconds of any clock."""
        self._clocks = clocks
        self._since = self._still_since = self._spoke_at = now
        self._arrived = arrived
        self._moved = -1

    def look(self, now: float, phase: Phase, arrived: int, relayed: int) -> Refusal | None:
        """Whether it has taken too long.

        Args:
            now: seconds, of the clock that the watch began with.
            phase: whom it waits for.
            arrived: bytes of the request's body so far.
            relayed: bytes of the response so far.

        """
        clocks = self._clocks
        moved = arrived + relayed
        if moved != self._moved:
            self._moved = moved
            self._still_since = self._spoke_at = now
        age, still = now - self._since, now - self._still_since
        if clocks.ceiling_s is not None and age >= clocks.ceiling_s:
            return _too_late(f"the stream is open for {clocks.ceiling_s:g} s, the longest that is allowed here")
        if phase is Phase.OPEN:
            if still >= clocks.idle_s:
                return _too_late(f"nothing has moved on the stream for {clocks.idle_s:g} s")
        elif phase is Phase.ASKED:
            if still >= clocks.response_s:
                return _too_late(f"the agent has not answered for {clocks.response_s:g} s")
        elif still >= clocks.body_s:
            return Refusal(Reason.REQUEST_TIMEOUT, f"nothing of the body has come for {clocks.body_s:g} s")
        elif age > clocks.body_s and arrived - self._arrived < clocks.body_rate * (age - clocks.body_s):
            return Refusal(Reason.REQUEST_TIMEOUT, f"the body comes with less than {clocks.body_rate:g} bytes a second")
        return None

    def speak(self, now: float) -> bool:
        """Whether it is time for a sign of life; the next one is due after as long again."""
        every = self._clocks.keep_alive_s
        if every is None or now - self._spoke_at < every:
            return False
        self._spoke_at = now
        return True


def _too_late(detail: str) -> Refusal:
    return Refusal(Reason.DEADLINE_EXCEEDED, detail)
