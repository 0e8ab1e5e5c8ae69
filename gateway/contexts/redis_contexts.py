"""A store that all replicas share, in a Redis (or Valkey).  What it forgets is gone: run it with ``noeviction``."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, Final

from redis.exceptions import RedisError

from gateway.contexts.store import Place, Put, Quota, StoreError
from gateway.redis_store import connect, words

PREFIX: Final = "phoenixflight:context:"
TIMEOUT_S: Final = 2.0
"""For everything that an answer takes; megabytes take longer than what other stores ask."""

# KEYS: the context, its readers, the conversation, the account.  A hash of an account has `SIZE:UNTIL` by place.
PUT: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local life, place = tonumber(ARGV[3]), ARGV[2]
local size, until_ = #ARGV[1], now + life
local owner = redis.call('HGET', KEYS[1], 'owner')
local kept = owner
if not kept then
  owner = ARGV[6]
  local count, bytes = 0, 0
  local all = redis.call('HGETALL', KEYS[4])
  for i = 1, #all, 2 do
    local had, ends = string.match(all[i + 1], '^(%d+):(%d+)$')
    if tonumber(ends) <= now then
      redis.call('HDEL', KEYS[4], all[i])
    else
      count, bytes = count + 1, bytes + tonumber(had)
    end
  end
  if count >= tonumber(ARGV[5]) or bytes + size > tonumber(ARGV[4]) then
    return 'over-quota'
  end
  redis.call('DEL', KEYS[2])
end
local account = ARGV[7] .. owner
redis.call('HSET', KEYS[1], 'sealed', ARGV[1], 'owner', owner)
redis.call('PEXPIRE', KEYS[1], life)
redis.call('HSET', account, place, string.format('%d:%.0f', size, until_))
redis.call('PEXPIRE', account, life)
for i = 6, #ARGV do
  if i ~= 7 then
    redis.call('SADD', KEYS[2], ARGV[i])
  end
end
redis.call('SADD', KEYS[2], owner)
redis.call('PEXPIRE', KEYS[2], life)
redis.call('SADD', KEYS[3], place)
redis.call('PEXPIRE', KEYS[3], life)
return kept and 'kept' or 'stored'
"""
# KEYS: the context, its readers.  With a first argument, that one may read it, too, and there are no bytes to give.
READ: Final = """
local allowed = false
for i = 2, #ARGV do
  allowed = allowed or redis.call('SISMEMBER', KEYS[2], ARGV[i]) == 1
end
if not allowed or redis.call('EXISTS', KEYS[1]) == 0 then
  return false
end
if ARGV[1] ~= '' then
  redis.call('SADD', KEYS[2], ARGV[1])
  return 'granted'
end
return redis.call('HGET', KEYS[1], 'sealed')
"""
# KEYS: the conversation.
ERASE: Final = """
local count = 0
for _, place in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local owner = redis.call('HGET', ARGV[1] .. place, 'owner')
  if owner then
    redis.call('HDEL', ARGV[2] .. owner, place)
  end
  count = count + redis.call('DEL', ARGV[1] .. place)
  redis.call('DEL', ARGV[3] .. place)
end
redis.call('DEL', KEYS[1])
return count
"""


class RedisContexts:
    """A `Store` in Redis, which forgets what is too old by itself, and by its own clock."""

    def __init__(self, url: str, max_age_s: float, *, timeout_s: float = TIMEOUT_S) -> None:
        """Nothing is connected yet.

        Args:
            url: as `connect` takes it.
            max_age_s: how long a context is kept.
            timeout_s: for everything that an answer takes.

        """
        self._redis = connect(url)
        self._life_ms = max(1, round(max_age_s * 1000))
        self._timeout_s = timeout_s
        self._put = self._redis.register_script(PUT)
        self._read = self._redis.register_script(READ)
        self._erase = self._redis.register_script(ERASE)

    async def put(
        self, place: Place, sealed: bytes, owner: str, readers: Collection[str], quota: Quota, now: float
    ) -> Put:
        """See `Store.put`."""
        arguments = [sealed, _text(place), self._life_ms, quota.bytes, quota.contexts, owner, _ACCOUNT, *readers]
        keys = [_CONTEXT + _text(place), _READERS + _text(place), _CONVERSATION + place.conversation, _ACCOUNT + owner]
        found: bytes = await self._asked(self._put, keys, arguments)
        return Put(found.decode())

    async def get(self, place: Place, readers: Collection[str], now: float) -> bytes | None:
        """See `Store.get`."""
        found: bytes | None = await self._asked(self._read, _of(place), ["", *readers])
        return found

    async def grant(self, place: Place, readers: Collection[str], reader: str, now: float) -> bool:
        """See `Store.grant`."""
        return await self._asked(self._read, _of(place), [reader, *readers]) is not None

    async def erase(self, conversation: str) -> int:
        """See `Store.erase`."""
        found: int = await self._asked(self._erase, [_CONVERSATION + conversation], [_CONTEXT, _ACCOUNT, _READERS])
        return found

    async def sweep(self, now: float) -> int:
        """See `Store.sweep`: nothing is left to do."""
        return 0

    async def close(self) -> None:
        """See `Store.close`."""
        await self._redis.aclose()

    async def _asked(self, script: Any, keys: list[str], arguments: list[Any]) -> Any:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await script(keys, arguments)
        except (RedisError, OSError) as error:  # a timeout is an OSError
            raise StoreError(f"Redis: {words(error)}") from None


_CONTEXT = f"{PREFIX}bytes:"
_READERS = f"{PREFIX}readers:"
_CONVERSATION = f"{PREFIX}conversation:"
_ACCOUNT = f"{PREFIX}account:"


def _text(place: Place) -> str:
    return f"{place.conversation}.{place.digest}"


def _of(place: Place) -> list[str]:
    return [_CONTEXT + _text(place), _READERS + _text(place)]
