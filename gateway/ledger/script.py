"""What Redis does with one entry of the ledger, in one step and by its own clock."""

from __future__ import annotations

from enum import Enum
from typing import Final


class Todo(Enum):
    """What is asked."""

    BEGIN = b"begin"
    """Note that it begins, if nobody knows of it."""
    RENEW = b"renew"
    """It is still under way here; what Redis has lost of it is noted anew."""
    FINISH = b"finish"
    """It is done, with this answer."""
    LOSE = b"lose"
    """It may have been done."""
    FORGET = b"forget"
    """Nothing was done."""


class State(Enum):
    """What is answered."""

    BEGUN = b"begun"
    """It begins now."""
    FLIGHT = b"flight"
    """It is under way."""
    CONFLICT = b"conflict"
    """Something else was begun under its key."""
    DONE = b"done"
    """It is done; the answer comes with it."""
    UNKNOWN = b"unknown"
    """It was lost, or its replica has been silent for too long."""
    NOTED = b"noted"
    """What was told is in Redis."""
    OTHERS = b"others"
    """It is another's, or of no interest any more."""


LUA: Final = """
local todo, digest, by = ARGV[1], ARGV[2], ARGV[3]
local lease_ms, remember_ms = tonumber(ARGV[4]), tonumber(ARGV[5])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local found = redis.call('HMGET', KEYS[1], 'digest', 'by', 'state', 'until', 'answer')
local mine = found[2] == by

local function fly()
  redis.call('HSET', KEYS[1], 'digest', digest, 'by', by, 'state', 'flight',
    'until', string.format('%.0f', now + lease_ms))
  redis.call('PEXPIRE', KEYS[1], remember_ms + lease_ms)
end

if todo == 'begin' then
  if not found[1] then
    fly()
    return {'begun', ''}
  elseif found[1] ~= digest then
    return {'conflict', ''}
  elseif found[3] == 'done' then
    return {'done', found[5]}
  elseif found[3] == 'flight' and tonumber(found[4]) > now then
    return {'flight', ''}
  end
  return {'unknown', ''}
end

if found[1] and not mine then
  return {'others', ''}
elseif todo == 'forget' then
  redis.call('DEL', KEYS[1])
elseif found[3] == 'done' or found[3] == 'lost' then
  return {'others', ''}
elseif todo == 'renew' then
  fly()
else
  local state = 'lost'
  if todo == 'finish' then
    state = 'done'
  end
  redis.call('HSET', KEYS[1], 'digest', digest, 'by', by, 'state', state, 'answer', ARGV[6])
  redis.call('PEXPIRE', KEYS[1], remember_ms)
end
return {'noted', ''}
"""
