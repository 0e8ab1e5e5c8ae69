"""Each key is admitted once within its lifetime, by all replicas that share a Redis (or Valkey).

What Redis forgets can be replayed: run it with ``maxmemory-policy noeviction``, and with ``appendonly`` to survive
restarts.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Final, Self

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.admission.replay import Admission, digest

PREFIX: Final = b"phoenixflight:replay:"
DEFAULT_TIMEOUT_S: Final = 0.25
DEFAULT_CONNECTIONS: Final = 16

log = logging.getLogger(__name__)


class RedisReplay:
    """A `ReplayGuard` in Redis; when that does not answer in time, the answer is `Admission.UNAVAILABLE`.

    Connections are made when they are needed, so a Redis that comes back is used again at once.
    """

    __slots__ = ("_redis", "_timeout_s", "_trouble")

    def __init__(
        self, url: str, *, timeout_s: float = DEFAULT_TIMEOUT_S, max_connections: int = DEFAULT_CONNECTIONS
    ) -> None:
        """Nothing is connected yet.

        Args:
            url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, as redis-py reads it.
            timeout_s: for everything that an answer takes, connecting and waiting for a connection included.
            max_connections: more questions than these at once wait for their turn.

        """
        # A question is not asked again: the first may have arrived, and would make the second one a replay.
        # RESP2, because with RESP3 the client expects notifications between answers, and so does not look whether a
        # connection out of the pool was closed meanwhile: each would fail once after a restart of Redis.
        pool = BlockingConnectionPool.from_url(
            url, max_connections=max_connections, timeout=None, retry=Retry(NoBackoff(), 0), protocol=2
        )
        self._redis = Redis.from_pool(pool)
        self._timeout_s = timeout_s
        self._trouble = ""

    @property
    def trouble(self) -> str:
        """Why the last question had no answer; empty when it had one."""
        return self._trouble

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
            self._tell(str(error) or type(error).__name__)
            return Admission.UNAVAILABLE
        self._tell("")
        return Admission.FRESH if fresh else Admission.SEEN

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _tell(self, trouble: str) -> None:
        if trouble and not self._trouble:
            log.warning("replay memory in Redis: %s; packets that need it are refused", trouble)
        elif self._trouble and not trouble:
            log.info("replay memory in Redis: answers again")
        self._trouble = trouble
