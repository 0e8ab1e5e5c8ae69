"""Sessions of operators who use a browser: in memory, bounded, and over after a working day.  Pure."""

from __future__ import annotations

import hashlib
import secrets
from typing import Final, NamedTuple

COOKIE: Final = "phoenixflight-session"
LIFETIME_S: Final = 8 * 3600
MAX_SESSIONS: Final = 100
"""Beyond it the oldest ends."""


class Session(NamedTuple):
    """Whose it is."""

    who: str
    token: bytes
    """A digest of the token that it began with: with another one, it is over."""


class Sessions:
    """The sessions there are, by a digest of the cookie's value: who reads this memory cannot take one over."""

    def __init__(self) -> None:
        self._sessions: dict[bytes, tuple[Session, float]] = {}

    def begin(self, session: Session, now: float) -> str:
        """Begin `session`; gives the value of its cookie."""
        value = secrets.token_urlsafe(32)
        self._sessions[_key(value)] = session, now + LIFETIME_S
        if len(self._sessions) > MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        return value

    def find(self, value: str, now: float) -> Session | None:
        """The session whose cookie has `value`, unless it is over."""
        session, until = self._sessions.get(_key(value), (None, now))
        if session is not None and now >= until:
            del self._sessions[_key(value)]
            return None
        return session

    def end(self, value: str) -> None:
        """End the session whose cookie has `value`."""
        self._sessions.pop(_key(value), None)


def _key(value: str) -> bytes:
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).digest()
