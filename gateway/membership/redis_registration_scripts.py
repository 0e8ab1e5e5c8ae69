"""What stands in Redis about registrations, and the scripts that change it.

A value is one letter, R(eady) or D(raining), and the registration as JSON.  Two sorted sets, of all names and of one
owner's, have the times at which registrations end, in milliseconds of Redis's own clock.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from gateway.membership.registration import Registration

# One hash tag, so that a cluster keeps all of it in one place, where scripts can reach it.
PREFIX: Final = "{phoenixflight:members}:"
CHANNEL: Final = PREFIX + "changes"
INDEX: Final = PREFIX + "index"
EPOCH: Final = PREFIX + "epoch"
GONE: Final = b"-"
"""Before a name on the channel: it was retired, and is no more."""

PUT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local name, owner, value, lease = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local held = redis.call('GET', KEYS[1])
if held then
  if ARGV[7] == 'restore' or cjson.decode(string.sub(held, 2)).owner ~= owner then return 'taken' end
else
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
  if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[6]) then return 'too-many' end
  if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[5]) then return 'full' end
end
redis.call('SET', KEYS[1], value, 'PX', lease)
redis.call('ZADD', KEYS[2], now + lease, name)
redis.call('ZADD', KEYS[3], now + lease, name)
if redis.call('PTTL', KEYS[3]) < lease then redis.call('PEXPIRE', KEYS[3], lease) end
if held ~= value then redis.call('PUBLISH', KEYS[4], name) end
return held and 'renewed' or 'created'
"""
RETIRE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local name, owner, drain = ARGV[1], ARGV[2], tonumber(ARGV[3])
local held = redis.call('GET', KEYS[1])
if not held or cjson.decode(string.sub(held, 2)).owner ~= owner then return 'unknown' end
if drain == 0 then
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[2], name)
  redis.call('ZREM', KEYS[3], name)
  redis.call('PUBLISH', KEYS[4], '-' .. name)
else
  redis.call('SET', KEYS[1], 'D' .. string.sub(held, 2), 'PX', drain)
  redis.call('ZADD', KEYS[2], now + drain, name)
  redis.call('ZADD', KEYS[3], now + drain, name)
  if redis.call('PTTL', KEYS[3]) < drain then redis.call('PEXPIRE', KEYS[3], drain) end
  redis.call('PUBLISH', KEYS[4], name)
end
return 'retired'
"""
NAMES = """
local time = redis.call('TIME')
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('SETNX', KEYS[2], ARGV[1])
return {redis.call('GET', KEYS[2]), redis.call('ZRANGE', KEYS[1], 0, -1)}
"""


def entry(name: str) -> str:
    """The key of a registration."""
    return f"{PREFIX}at:{name}"


def keys(name: str, owner: str) -> list[str]:
    """What the scripts touch for one registration."""
    return [entry(name), INDEX, f"{PREFIX}of:{owner}", CHANNEL]


def ms(seconds: float) -> int:
    """Whole milliseconds, no less."""
    return math.ceil(seconds * 1000)


def written(registration: Registration) -> bytes:
    """The value for a registration."""
    letter = b"D" if registration.draining else b"R"
    return letter + msgspec.json.encode(msgspec.structs.replace(registration, draining=False))


def read(value: bytes) -> Registration:
    """The registration of a value.

    Raises:
        msgspec.MsgspecError: it is none that this version knows.

    """
    registration = msgspec.json.decode(value[1:], type=Registration)
    return msgspec.structs.replace(registration, draining=True) if value[:1] == b"D" else registration
