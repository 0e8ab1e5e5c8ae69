"""How many agents of a capability may be out at once.  Pure."""

from __future__ import annotations

from collections.abc import Iterable

_ROUNDING = 1e-9
"""A third of three is one, in floating point, too."""


class EjectionLimit:
    """Counts, by capability, who is ready and who of these is out."""

    __slots__ = ("_out", "_ready", "_share")

    def __init__(self, share: float) -> None:
        """Nobody is there yet; `share` of the ready may be out."""
        self._share = share
        self._ready: dict[str, int] = {}
        self._out: dict[str, int] = {}
        """Without zeroes."""

    def join(self, capabilities: Iterable[str], *, out: bool) -> None:
        """One more is ready."""
        for capability in capabilities:
            self._ready[capability] = self._ready.get(capability, 0) + 1
        if out:
            self.eject(capabilities)

    def leave(self, capabilities: Iterable[str], *, out: bool) -> None:
        """One that was ready is no more."""
        for capability in capabilities:
            self._ready[capability] -= 1
            if not self._ready[capability]:
                del self._ready[capability]
        if out:
            self.readmit(capabilities)

    def eject(self, capabilities: Iterable[str]) -> None:
        """One of the ready is out."""
        for capability in capabilities:
            self._out[capability] = self._out.get(capability, 0) + 1

    def readmit(self, capabilities: Iterable[str]) -> None:
        """One of those out is in again."""
        for capability in capabilities:
            self._out[capability] -= 1
            if not self._out[capability]:
                del self._out[capability]

    def allows(self, capabilities: Iterable[str]) -> bool:
        """Whether one more of those ready for `capabilities` may be out."""
        return all(self._out.get(capability, 0) < self._most(capability) for capability in capabilities)

    def exceeded(self) -> list[str]:
        """Capabilities of which more are out than may be, since others have left."""
        return [capability for capability, out in self._out.items() if out > self._most(capability)]

    def _most(self, capability: str) -> int:
        ready = self._ready.get(capability, 0)
        if ready < 2 or not self._share:
            return 0
        return min(ready - 1, max(1, int(ready * self._share + _ROUNDING)))
