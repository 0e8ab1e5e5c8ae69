"""Each key is admitted once within its lifetime, by all replicas that share a Redis (or Valkey).

What Redis forgets can be replayed: run it with ``maxmemory-policy noeviction``, and with ``appendonly`` to survive
restarts.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Final, Self

from redis.exceptions import RedisError

from gateway.admission.replay import Admission, digest
from gateway.redis_store import DEFAULT_CONNECTIONS, DEFAULT_TIMEOUT_S, Outage, connect

PREFIX: Final = b"phoenixflight:replay:"

log = logging.getLogger(__name__)


class RedisReplay:
    """A `ReplayGuard` in Redis; when that does not answer in time, the answer is `Admission.UNAVAILABLE`."""

    __slots__ = ("_outage", "_redis", "_timeout_s")

    def __init__(
        self, url: str, *, timeout_s: float = DEFAULT_TIMEOUT_S, max_connections: int = DEFAULT_CONNECTIONS
    ) -> None:
        """Nothing is connected yet.

        Args:
            url: as `connect` takes it.
            timeout_s: for everything that an answer takes, connecting and waiting for a connection included.
            max_connections: more questions than these at once wait for their turn.

        """
        self._redis = connect(url, max_connections)
        self._timeout_s = timeout_s
        self._outage = Outage(log, "replay memory", "packets that need it are refused")

    @property
    def trouble(self) -> str:
        """Why the last question had no answer; empty when it had one."""
        return self._outage.trouble

    async def admit(self, key: bytes, now: float, until: float) -> Admission:
        """Admit `key` once; see `ReplayMemory.admit_now`.

        Redis is told how long to remember, not until when: its clock does not matter.
        """
        if until <= now:
            return Admission.SEEN
        lifetime_ms = math.ceil((until - now) * 1000)
        try:
            async with asyncio.timeout(self._timeout_s):
                fresh = await self._redis.set(PREFIX + digest(key), b"", nx=True, px=lifetime_ms)
        except (RedisError, OSError) as error:  # a timeout is an OSError
            self._outage.failed(error)
            return Admission.UNAVAILABLE
        self._outage.answered()
        return Admission.FRESH if fresh else Admission.SEEN

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
