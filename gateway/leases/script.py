"""What Redis does with the lease of one conversation, in one step and by its own clock."""

from __future__ import annotations

import hashlib
from enum import Enum
from typing import Final

import msgspec


class Todo(Enum):
    """What is asked."""

    LOOK = b"look"
    """Begin a lease of `wanted`, or tell whose it is; if it is live or the owner is `wanted`, it is renewed."""
    STAY = b"stay"
    """Renew it, if nobody changed it since it was read and it is idle."""
    MOVE = b"move"
    """Make it the lease of `wanted`, on the same conditions."""
    FORCE = b"force"
    """Make it the lease of `wanted`, if nobody changed it since it was read."""
    HAND_OVER = b"hand over"
    """The same, if besides no exchange of it is open at another replica; else it is renewed."""
    LET_GO = b"let go"
    """Tell that none is open at this replica any more."""
    RENEW = b"renew"
    """Renew it, if there is one, whoever's it is: an exchange of it is open here."""
    LAST = b"last"
    """The same, once more: there was one."""


class State(Enum):
    """What is answered."""

    NEW = b"new"
    """It began."""
    SAME = b"same"
    """It is that of `wanted`, and was renewed."""
    DONE = b"done"
    """What was asked was done."""
    LIVE = b"live"
    """It is another's, is live, and was renewed."""
    IDLE = b"idle"
    """It is another's, is idle, and was not renewed."""
    HELD = b"held"
    """It is another's, and an exchange of it may be open at another replica; it was renewed."""
    GONE = b"gone"
    """There is none to be renewed."""


class Reading(msgspec.Struct, frozen=True, gc=False):
    """A lease as it is in Redis."""

    state: State
    owner: bytes
    epoch: int


PREFIX: Final = b"phoenixflight:lease:"
MOVED: Final = "phoenixflight:lease:moved"
"""The channel on which the key of each lease is told that changes hands."""

LUA: Final = (
    f"local moved = '{MOVED}'"
    + """
local idle_ms, remember_ms, todo, wanted, mine = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4], ARGV[7]
if todo == 'let go' then
  redis.call('HDEL', KEYS[1], mine)
  return {'done', '', 0}
end
local renews = todo == 'renew' or todo == 'last'
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local found = redis.call('HMGET', KEYS[1], 'owner', 'epoch', 'at')
local owner, epoch, state = found[1], tonumber(found[2]), 'new'

-- A replica tells of what it holds each third of the idle time.
local function held_elsewhere()
  local fields = redis.call('HGETALL', KEYS[1])
  for i = 1, #fields, 2 do
    local name = fields[i]
    if string.sub(name, 1, 3) == 'by:' and name ~= mine and now - tonumber(fields[i + 1]) < idle_ms / 2 then
      return true
    end
  end
  return false
end

local function give()
  redis.call('PUBLISH', moved, KEYS[1])
  redis.call('DEL', KEYS[1])
  owner, epoch = wanted, epoch + 1
end

if owner then
  local idle = now - tonumber(found[3]) >= idle_ms
  local unchanged = owner == ARGV[5] and epoch == tonumber(ARGV[6])
  if renews then
    state = 'done'
  elseif owner == wanted then
    state = 'same'
  elseif unchanged and todo == 'hand over' and held_elsewhere() then
    state = 'held'
  elseif unchanged and (todo == 'force' or todo == 'hand over' or (idle and todo ~= 'look')) then
    state = 'done'
    if todo ~= 'stay' then
      give()
    end
  elseif idle then
    return {'idle', owner, epoch}
  else
    state = 'live'
  end
elseif renews then
  return {'gone', '', 0}
else
  owner, epoch = wanted, 1
end

local at = string.format('%.0f', now)
redis.call('HSET', KEYS[1], 'owner', owner, 'epoch', epoch, 'at', at)
if todo ~= 'last' then
  redis.call('HSET', KEYS[1], mine, at)
end
redis.call('PEXPIRE', KEYS[1], remember_ms)
return {state, owner, epoch}
"""
)
SHA: Final = hashlib.sha1(LUA.encode(), usedforsecurity=False).hexdigest()
"""By which Redis knows the script."""
