"""Tokens that were wrong: who shows too many of them has to wait.  Pure: it is told the time."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import ceil
from typing import Final

MAX_FAILED: Final = 10
"""Wrong tokens from one address within `WINDOW_S`; then none is looked at until that has passed."""
WINDOW_S: Final = 60.0
MAX_ADDRESSES: Final = 1_000
"""Beyond it the one that failed first is forgotten."""


@dataclass(slots=True)
class _Failed:
    since: float
    count: int = 0


class Attempts:
    """What has failed lately, by address."""

    def __init__(self) -> None:
        self._failed: OrderedDict[str, _Failed] = OrderedDict()

    def wait_s(self, address: str, now: float) -> int:
        """How many seconds `address` has to wait; 0 when its next token is looked at."""
        known = self._failed.get(address)
        if known is None or known.count < MAX_FAILED:
            return 0
        return max(0, ceil(known.since + WINDOW_S - now))

    def failed(self, address: str, now: float) -> None:
        """A token from `address` was wrong."""
        known = self._failed.get(address)
        if known is None or now - known.since >= WINDOW_S:
            self._failed.pop(address, None)
            known = self._failed[address] = _Failed(now)
        known.count += 1
        if len(self._failed) > MAX_ADDRESSES:
            self._failed.popitem(last=False)
