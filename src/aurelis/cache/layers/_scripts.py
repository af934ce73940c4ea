"""What Redis does in one step. All keys of a call are in one slot, or on one server."""

from __future__ import annotations

from typing import Final

from ._link import Script

_NOW = """
local function present(key)
  local number = redis.call('GET', key)
  if not number then
    local time = redis.call('TIME')
    number = string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2]))
    redis.call('SET', key, number)
  end
  return number
end
"""
# The clock begins with the time in microseconds, so that one which was lost (evicted, or with the whole database) goes
# on above all that it ever said, unless changes came faster than one in a microsecond.

LOOKUP: Final = Script("""
local found = {}
for i, key in ipairs(KEYS) do
  local value = redis.pcall('GET', key)
  if type(value) == 'string' then
    found[#found + 1] = {i, value, redis.call('PTTL', key)}
  elseif type(value) == 'table' then
    found[#found + 1] = {i, '', -1}
  end
end
return found
""")
"""Value and remaining life (ms) of entries. A key that holds something else than a string is some other program's: it
is reported as an empty frame, which no frame of ours is."""

LIVES: Final = Script("""
local lives = {}
for i, key in ipairs(KEYS) do
  lives[i] = redis.call('PTTL', key)
end
return lives
""")
"""Remaining life (ms) of entries; -1: for ever, -2: there is none."""

ACQUIRE: Final = Script(
    _NOW
    + """
local clock = KEYS[3] and present(KEYS[3]) or ''
if ARGV[3] == '0' then
  local value = redis.pcall('GET', KEYS[1])
  if type(value) == 'string' then
    return {value, redis.call('PTTL', KEYS[1]), '', clock}
  end
end
local holder = redis.pcall('GET', KEYS[2])
if type(holder) ~= 'string' or string.sub(holder, 1, #ARGV[4]) == ARGV[4] then
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
  holder = ARGV[1]
end
return {'', -2, holder, clock}
"""
)
"""Keys: entry, lease and perhaps the clock. Arguments: token, life of the lease (ms), whether to load although there is
an entry, and what tokens of this process begin with. Returns the entry and its life, or the lease's token; and the
clock.

A lease of this process is that of a load which this process has given up: otherwise nobody here would ask."""

RENEW: Final = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
""")
"""Key: lease. Arguments: token, life (ms)."""

RELEASE: Final = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('UNLINK', KEYS[1])
end
return 0
""")
"""Key: lease. Argument: token."""

PUBLISH: Final = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
for i = 2, #KEYS do
  local life = ARGV[2 * i]
  if life == '' then
    redis.call('SET', KEYS[i], ARGV[2 * i - 1])
  else
    redis.call('SET', KEYS[i], ARGV[2 * i - 1], 'PX', life)
  end
end
if ARGV[2] == '1' then
  redis.call('UNLINK', KEYS[1])
end
return 1
""")
"""Keys: lease, entries. Arguments: token, whether the lease ends, then frame and life (ms; empty: for ever) of each."""

_TICK = (
    _NOW
    + """
local function tick(key, floor)
  local now = tonumber(present(key))
  floor = tonumber(floor)
  if floor > now then
    now = floor
  end
  local text = string.format('%.0f', now + 1)
  redis.call('SET', key, text)
  return text
end
"""
)

TICK: Final = Script(_TICK + "return tick(KEYS[1], ARGV[1])")
"""Key: clock. Argument: the highest generation known. Returns the next one."""

PRESENT: Final = Script(_NOW + "return present(KEYS[1])")
"""Key: clock. Returns the present generation."""

BEAT: Final = Script(
    _NOW
    + """
redis.call('PUBLISH', ARGV[1], present(KEYS[1]) .. ' ' .. ARGV[2])
return 1
"""
)
"""Key: clock. Arguments: channel, message. Tells it with the present generation."""

_BUMP = """
local function bump(key, number, soft, life)
  local hard, soft_before = string.match(redis.pcall('GET', key) or '', '^(%d+):(%d+)$')
  hard, soft_before = hard or '0', soft_before or '0'
  local value
  if soft == '1' then
    value = (hard == '0' and number or hard) .. ':' .. number
  else
    value = number .. ':' .. soft_before
  end
  redis.call('SET', key, value, 'PX', life)
end
"""
# A tag without a record had one perhaps, so that a soft invalidation of it is a hard one.

INVALIDATE: Final = Script(
    _TICK
    + _BUMP
    + """
local number = tick(KEYS[1], ARGV[1])
for i = 2, #KEYS do
  bump(KEYS[i], number, ARGV[4], ARGV[5])
end
redis.call('PUBLISH', ARGV[2], number .. ' ' .. ARGV[3])
return number
"""
)
"""Keys: clock, tags. Arguments: the highest generation known, channel, message, whether it is soft, and the life (ms)
of the records. Tells it with the next generation."""

BUMP: Final = Script(_BUMP + "bump(KEYS[1], ARGV[1], ARGV[2], ARGV[3]) return 1")
"""Key: tag. Arguments: generation, whether it is soft, life (ms)."""

ENSURE: Final = Script(
    _NOW
    + """
local now = ARGV[1]
if now == '0' then
  now = present(KEYS[1])
end
local records = {}
for i = 2, #KEYS do
  local record = redis.pcall('GET', KEYS[i])
  if type(record) == 'string' and string.match(record, '^%d+:%d+$') then
    redis.call('PEXPIRE', KEYS[i], ARGV[2])
  else
    record = now .. ':0'
    redis.call('SET', KEYS[i], record, 'PX', ARGV[2])
  end
  records[i - 1] = record
end
return records
"""
)
"""Keys: clock, tags. Arguments: the present generation (0: look at the clock), life (ms). Returns the records.

A tag without a record gets the present generation, since it may have had one up to that. What began to be loaded later
has at least that generation and is valid."""
