"""Tokens that others give: kept until shortly before they end, asked for once at a time, and not again at once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

NEGATIVE_S: Final = 5.0
"""How long it is remembered that there is no token."""
MAX_EARLY_S: Final = 30.0
EARLY_SHARE: Final = 0.1
"""A token is used until so much of its life is left, but no more than `MAX_EARLY_S`: it has to reach somebody yet."""
MAX_KEPT: Final = 10_000
"""Beyond it the oldest are forgotten."""

Clock = Callable[[], float]


class Fetch(Enum):
    """What came of asking an authorization server."""

    OK = "ok"
    REFUSED = "refused"
    """It answered that there is none."""
    UNREACHABLE = "unreachable"
    """No answer in time."""
    MALFORMED = "malformed"
    """An answer that is none."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token, and when it ends by the clock that it is kept by."""

    text: str = field(repr=False)
    fetched: float
    expires: float
    scope: str = ""
    kind: str = ""
    """Its ``issued_token_type`` (RFC 8693 section 2.2.1), where the server says one."""

    @property
    def fresh_until(self) -> float:
        """How long it may be sent."""
        return self.expires - min(MAX_EARLY_S, (self.expires - self.fetched) * EARLY_SHARE)


@dataclass(frozen=True, slots=True)
class NoToken:
    """Why there is none."""

    why: Fetch
    error: str = ""
    """The server's ``error`` (RFC 6749 section 5.2), where it is one that is known."""


class TokenCache:
    """Keeps tokens, and owns the tasks that ask for them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: OrderedDict[Hashable, tuple[Token | NoToken, float]] = OrderedDict()
        """With how long each holds."""
        self._asked: dict[Hashable, asyncio.Task[Token | NoToken]] = {}

    def at_hand(self, key: Hashable) -> Token | NoToken | None:
        """What is known now; ``None`` when it takes a question."""
        kept = self._kept.get(key)
        return kept[0] if kept is not None and self._clock() < kept[1] else None

    async def get(self, key: Hashable, fetch: Callable[[], Awaitable[Token | NoToken]]) -> Token | NoToken:
        """What is known, or what `fetch` finds; those who ask for the same meanwhile wait for the same answer."""
        found = self.at_hand(key)
        if found is not None:
            return found
        task = self._asked.get(key)
        if task is None:
            task = self._asked[key] = asyncio.ensure_future(self._fetch(key, fetch))
        return await asyncio.shield(task)  # whoever goes away, the others still wait

    async def _fetch(self, key: Hashable, fetch: Callable[[], Awaitable[Token | NoToken]]) -> Token | NoToken:
        try:
            found = await fetch()
        finally:
            del self._asked[key]
        until = found.fresh_until if isinstance(found, Token) else self._clock() + NEGATIVE_S
        self._kept[key] = found, until
        self._kept.move_to_end(key)
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return found

    async def close(self) -> None:
        """Ask no more."""
        tasks = list(self._asked.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
