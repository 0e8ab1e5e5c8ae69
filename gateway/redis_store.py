"""The Redis (or Valkey) that replicas share: how to reach it, and what is told when it does not answer."""

from __future__ import annotations

import logging
from typing import Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

DEFAULT_TIMEOUT_S: Final = 0.25
"""For everything that an answer takes, connecting and waiting for a connection included."""
DEFAULT_CONNECTIONS: Final = 16


def connect(url: str, max_connections: int = DEFAULT_CONNECTIONS) -> Redis:
    """A client of the Redis at `url`.  Connections are made when they are needed, so one that comes back is used again.

    Args:
        url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, as redis-py reads it.
        max_connections: more questions than these at once wait for their turn.

    """
    # A question is not asked again: the first may have arrived, and would change the answer to the second.
    # RESP2, because with RESP3 the client expects notifications between answers, and so does not look whether a
    # connection out of the pool was closed meanwhile: each would fail once after a restart of Redis.
    pool = BlockingConnectionPool.from_url(
        url, max_connections=max_connections, timeout=None, retry=Retry(NoBackoff(), 0), protocol=2
    )
    return Redis.from_pool(pool)


class Outage:
    """Whether a store answers; the log has its first silence and its first answer after it, and nothing between."""

    __slots__ = ("_consequence", "_log", "_store", "trouble")

    def __init__(self, log: logging.Logger, store: str, consequence: str) -> None:
        """Nothing has been asked yet.

        Args:
            log: where it is told.
            store: what is kept there, in a few words.
            consequence: what it means for packets that there is no answer.

        """
        self.trouble = ""
        """Why the last question had no answer; empty when it had one."""
        self._log = log
        self._store = store
        self._consequence = consequence

    def failed(self, error: Exception) -> None:
        """A question had no answer."""
        trouble = str(error) or type(error).__name__
        if not self.trouble:
            self._log.warning("%s in Redis: %s; %s", self._store, trouble, self._consequence)
        self.trouble = trouble

    def answered(self) -> None:
        """A question had an answer."""
        if self.trouble:
            self._log.info("%s in Redis: answers again", self._store)
            self.trouble = ""
