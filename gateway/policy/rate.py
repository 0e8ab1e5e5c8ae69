"""How often something may happen, as people write it: ``50/s``, ``100/m``, ``5/h``."""

from __future__ import annotations

import re

import msgspec

_RATE = re.compile(r"([1-9][0-9]{0,8})/([smh])")
_PERIODS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}


class Rate(msgspec.Struct, frozen=True):
    """`count` times in each `period_s` seconds."""

    count: int
    period_s: float

    @property
    def per_s(self) -> float:
        """How many a second, on average."""
        return self.count / self.period_s

    @property
    def text(self) -> str:
        """As people write it."""
        return f"{self.count}/{next(unit for unit, period_s in _PERIODS_S.items() if period_s == self.period_s)}"


def parse_rate(text: object) -> Rate:
    """Read a rate.

    Raises:
        ValueError: it is none.

    """
    matched = _RATE.fullmatch(text) if isinstance(text, str) else None
    if matched is None:
        raise ValueError(f"expected a rate such as 50/s, 100/m or 5/h, not {text!r}")
    return Rate(int(matched[1]), _PERIODS_S[matched[2]])
