"""What Redis does with one account, in one step."""

from __future__ import annotations

from enum import Enum
from typing import Final


class Todo(Enum):
    """What is asked."""

    HELLO = b"hello"
    """Nothing; from the first question on, it is known since when Redis remembers."""
    OPEN = b"open"
    ADOPT = b"adopt"
    """It was opened elsewhere meanwhile: its parent's account is charged, whatever that has left."""
    SETTLE = b"settle"
    """It is over; one that is not known is remembered as such, so that it cannot be opened by a late question."""


class State(Enum):
    """What is answered."""

    RESERVED = b"reserved"
    """The amounts come with it, each after its unit."""
    SHORT = b"short"
    """The unit comes with it."""
    CLOSED = b"closed"
    LOST = b"lost"
    NOTED = b"noted"


LUA: Final = """
local todo, account, parent = ARGV[1], ARGV[2], ARGV[3]
local born, keep_ms = tonumber(ARGV[4]), ARGV[5]
local amounts, initial = cjson.decode(ARGV[6]), cjson.decode(ARGV[7])
local prefix = KEYS[1]
local me, up = prefix .. 'of:' .. account, prefix .. 'of:' .. parent

local function whole(number)
  return string.format('%.0f', number)
end

local clock = redis.call('TIME')
local since = redis.call('GET', prefix .. 'since')
if not since then
  since = whole(clock[1] * 1000 + math.floor(clock[2] / 1000))
  redis.call('SET', prefix .. 'since', since)
end

local function create(key, left)
  redis.call('HSET', key, 's', 'open')
  for unit, amount in pairs(left) do
    redis.call('HSET', key, 'l:' .. unit, whole(amount))
  end
  redis.call('PEXPIRE', key, keep_ms)
end

local function give(name, back)
  for _ = 1, 64 do
    local key = prefix .. 'of:' .. name
    local state = redis.call('HGET', key, 's')
    if name == '' or not state then
      return
    elseif state == 'open' then
      for unit, amount in pairs(back) do
        if redis.call('HEXISTS', key, 'l:' .. unit) == 1 then
          redis.call('HINCRBY', key, 'l:' .. unit, whole(amount))
        end
      end
      redis.call('PEXPIRE', key, keep_ms)
      return
    end
    name = redis.call('HGET', key, 'p') or ''
  end
end

-- Whether the parent's account is there, now: one that was opened before Redis lost its memory is not begun anew.
local function known()
  if parent == '' or redis.call('EXISTS', up) == 1 then
    return true
  elseif born < tonumber(since) then
    return false
  end
  create(up, initial)
  return true
end

if todo == 'open' then
  if redis.call('EXISTS', me) == 1 then
    return {'closed'}
  elseif not known() then
    return {'lost'}
  elseif parent ~= '' and redis.call('HGET', up, 's') == 'closed' then
    return {'closed'}
  end
  local given, reply = {}, {'reserved'}
  for unit, amount in pairs(amounts) do
    local left = parent ~= '' and redis.call('HGET', up, 'l:' .. unit)
    given[unit] = left and math.min(amount, tonumber(left)) or amount
    if given[unit] <= 0 then
      return {'short', unit}
    end
  end
  local taken = {}
  for unit, amount in pairs(given) do
    taken[unit] = -amount
    reply[#reply + 1] = unit
    reply[#reply + 1] = whole(amount)
  end
  give(parent, taken)
  create(me, given)
  redis.call('HSET', me, 'p', parent)
  return reply
elseif todo == 'adopt' then
  local state = redis.call('HGET', me, 's')
  if state and (state == 'closed' or redis.call('HEXISTS', me, 'p') == 1) then
    return {'noted'}
  end
  if known() then
    local taken = {}
    for unit, amount in pairs(amounts) do
      taken[unit] = -amount
    end
    give(parent, taken)
  end
  if not state then
    create(me, amounts)
  end
  redis.call('HSET', me, 'p', parent)
elseif todo == 'settle' then
  local back = {}
  local fields = redis.call('HGETALL', me)
  local was, found = {}, false
  for i = 1, #fields, 2 do
    was[fields[i]] = fields[i + 1]
    found = true
  end
  if found and was['s'] == 'closed' then
    return {'noted'}
  end
  for field, value in pairs(was) do
    if string.sub(field, 1, 2) == 'l:' then
      local unit = string.sub(field, 3)
      back[unit] = tonumber(value) - (amounts[unit] or 0)
      redis.call('HDEL', me, field)
    end
  end
  redis.call('HSET', me, 's', 'closed')
  redis.call('PEXPIRE', me, keep_ms)
  give(was['p'] or '', back)
end
return {'noted'}
"""
