"""The Redis (or Valkey) that replicas share: how to reach it, to hear of changes, and to tell that it fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

DEFAULT_TIMEOUT_S: Final = 0.25
"""For everything that an answer takes, connecting and waiting for a connection included."""
DEFAULT_CONNECTIONS: Final = 16
RECONNECT_S: Final = 0.2
"""How long who hears nothing waits before trying again."""


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


async def hear(
    redis: Redis,
    channel: str,
    *,
    quiet_s: float,
    timeout_s: float,
    began: Callable[[], None],
    told: Callable[[bytes], None],
    lost: Callable[[Exception], None],
) -> None:
    """Pass on what is said on `channel`, over one connection after the other, until this task is cancelled.

    Args:
        redis: who is asked.
        channel: its name.
        quiet_s: after so long without a word, whether there would be any is tried out; after as long again it is dead.
        timeout_s: for what is sent.
        began: called when everything that is said from then on will be heard, or `lost` called.
        told: called with each message.
        lost: called with the reason when nothing is heard any more, or from the start; once until `began` is.

    """
    deaf = False

    def hearing() -> None:
        nonlocal deaf
        deaf = False
        began()

    while not cancelled():
        try:
            await _hear_once(redis, channel, quiet_s, timeout_s, hearing, told)
        except (RedisError, OSError) as error:
            if not deaf:
                deaf = True
                lost(error)
        await asyncio.sleep(RECONNECT_S)


async def _hear_once(
    redis: Redis,
    channel: str,
    quiet_s: float,
    timeout_s: float,
    began: Callable[[], None],
    told: Callable[[bytes], None],
) -> None:
    """`hear`, over one connection until that proves dead.

    Raises:
        RedisError: Redis does not allow it, or the connection broke.
        OSError: it cannot be reached, or says nothing.

    """
    silent = False
    async with redis.pubsub() as subscription:
        async with asyncio.timeout(timeout_s):
            await subscription.subscribe(channel)
        while not cancelled():
            message = await subscription.get_message(timeout=quiet_s)
            if message is None:
                if silent:
                    raise ConnectionError(f"the channel {channel} is dead")
                silent = True
                async with asyncio.timeout(timeout_s):
                    await subscription.ping()
                continue
            silent = False
            if message["type"] == "subscribe":
                began()
            elif message["type"] == "message":
                told(message["data"])


def cancelled() -> bool:
    """Whether this task is to end: redis-py (8.1) now and then takes a cancellation for a timeout of its own."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def words(error: Exception) -> str:
    """What there is to say of an error."""
    return str(error) or type(error).__name__


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
        trouble = words(error)
        if not self.trouble:
            self._log.warning("%s in Redis: %s; %s", self._store, trouble, self._consequence)
        self.trouble = trouble

    def answered(self) -> None:
        """A question had an answer."""
        if self.trouble:
            self._log.info("%s in Redis: answers again", self._store)
            self.trouble = ""
