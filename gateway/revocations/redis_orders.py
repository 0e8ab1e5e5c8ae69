"""Operators' orders that all replicas share, in a Redis (or Valkey).

One hash has them all, and a version that each change raises.  A replica asks for what it does not know each second;
what it knows it keeps while Redis is away, and gives back to a Redis that has lost its memory, or a part of it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable
from time import monotonic, time
from typing import Any, Final

import msgspec
from redis.exceptions import RedisError

from gateway.authority.revocations import Entry
from gateway.redis_store import DEFAULT_TIMEOUT_S, Outage, connect
from gateway.revocations.keep import NOTHING_KEPT, Kept
from gateway.revocations.orders import Key

KEY: Final = b"phoenixflight:revocations"

# KEYS[1]: the hash; its field "" is the version, a number and what makes it unlike any other of that number.
# ARGV: the version that is known, what the next one is told by, the time, how many are put, field and value of each,
# fields that go.  Gives the version, and field and value of each where the known one is another; nothing at all where
# less is there than was known: the memory was lost, or is an older one.
_SYNC: Final = """
local function number(text) return tonumber(string.match(text, '^%d+')) end
local version = redis.call('HGET', KEYS[1], '')
local known = ARGV[1]
if known ~= '' and (not version or (version ~= known and number(version) <= number(known))) then return {} end
local last = 4 + 2 * tonumber(ARGV[4])
for at = 5, last, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
for at = last + 1, #ARGV do redis.call('HDEL', KEYS[1], ARGV[at]) end
if #ARGV > 4 then
  local all = redis.call('HGETALL', KEYS[1])
  for at = 1, #all, 2 do
    if all[at] ~= '' and cjson.decode(all[at + 1])['until'] < tonumber(ARGV[3]) - 3600 then
      redis.call('HDEL', KEYS[1], all[at])
    end
  end
  version = ((version and number(version) or 0) + 1) .. '-' .. ARGV[2]
  redis.call('HSET', KEYS[1], '', version)
end
if not version then return {''} end
if version == known then return {version} end
local found = redis.call('HGETALL', KEYS[1])
table.insert(found, 1, version)
return found
"""
log = logging.getLogger(__name__)


class RedisOrders:
    """`Orders` in Redis."""

    def __init__(
        self,
        url: str,
        kept: Kept = NOTHING_KEPT,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        clock: Callable[[], float] = monotonic,
        wall_clock: Callable[[], float] = time,
    ) -> None:
        """Nothing is connected yet.

        Args:
            url: as `connect` takes it.
            kept: what was known before a restart, until Redis says what there is.
            timeout_s: for everything that an answer takes.
            clock: seconds that do not go back.
            wall_clock: seconds since the epoch.

        """
        self._redis = connect(url)
        self._timeout_s = timeout_s
        self._clock = clock
        self._wall_clock = wall_clock
        self._outage = Outage(log, "revocations", "what is known here stays revoked; other replicas are not heard")
        self._entries = {each.key: each for each in kept.orders}
        self._version = kept.version.encode()
        self._pending: dict[Key, Entry | None] = {each.key: each for each in kept.unshared}
        """What Redis has not been told; ``None`` is taken back."""
        self._synced_at = clock()
        self._turn = asyncio.Lock()

    @property
    def entries(self) -> Iterable[Entry]:
        """See `Orders.entries`."""
        return self._entries.values()

    @property
    def kept(self) -> Kept:
        """See `Orders.kept`."""
        unshared = tuple(each for each in self._pending.values() if each is not None)
        return Kept(tuple(self._entries.values()), unshared, self._version.decode())

    @property
    def trouble(self) -> str:
        """See `Orders.trouble`."""
        return self._outage.trouble

    @property
    def age_s(self) -> float:
        """See `Orders.age_s`."""
        return self._clock() - self._synced_at

    def put(self, entry: Entry) -> None:
        """See `Orders.put`."""
        self._entries[entry.key] = self._pending[entry.key] = entry

    def take_back(self, key: Key) -> bool:
        """See `Orders.take_back`."""
        self._pending[key] = None
        return self._entries.pop(key, None) is not None

    def strike_out(self, now: float) -> bool:
        """See `Orders.strike_out`; Redis does so itself, of what has ended long ago."""
        over = [key for key, each in self._entries.items() if each.until <= now]
        for key in over:
            del self._entries[key]
        return bool(over)

    async def sync(self) -> bool:
        """See `Orders.sync`."""
        before = self._version, len(self._pending)
        async with self._turn:
            try:
                async with asyncio.timeout(self._timeout_s):
                    if not await self._ask():
                        log.warning("revocations in Redis were lost; it is told what is known here")
                        self._version = b""
                        self._pending = {**self._entries, **self._pending}
                        await self._ask()
            except (RedisError, OSError) as error:  # a timeout is an OSError
                self._outage.failed(error)
            else:
                self._outage.answered()
                self._synced_at = self._clock()
        return before != (self._version, len(self._pending))

    async def _ask(self) -> bool:
        """Tell and ask; ``False`` when Redis has forgotten what it knew."""
        pending = dict(self._pending)
        puts = [part for each in pending.values() if each for part in (_field(each.key), msgspec.json.encode(each))]
        gone = [_field(key) for key, each in pending.items() if each is None]
        arguments = (self._version, secrets.token_hex(8), self._wall_clock(), len(puts) // 2, *puts, *gone)
        asked: Any = self._redis.eval(_SYNC, 1, KEY, *arguments)  # type: ignore[arg-type]
        answer: list[bytes] = await asked
        if not answer:
            return False
        for key, told in pending.items():
            if self._pending.get(key, told) is told:
                self._pending.pop(key, None)
        version, *pairs = answer
        if version != self._version:
            fields = zip(pairs[::2], pairs[1::2], strict=True)
            known = (msgspec.json.decode(value, type=Entry) for field, value in fields if field)
            self._entries = {each.key: each for each in known}
            for key, order in self._pending.items():  # given while Redis was asked
                if order is None:
                    self._entries.pop(key, None)
                else:
                    self._entries[key] = order
            self._version = version
        return True

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


def _field(key: Key) -> bytes:
    kind, value = key
    return f"{kind.value} {value}".encode()
