"""What Redis does in one step. All keys of a call are in one slot, or on one server."""

from __future__ import annotations

from typing import Final

from aurelis.cache.codecs import GENERATION_AT, MAGIC

from ._link import Script


def _lua(data: bytes) -> str:
    return "".join(f"\\{byte:03d}" for byte in data)


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

_RAISE = """
local function raise(key, number, life)
  local hard, soft = string.match(redis.pcall('GET', key) or '', '^(%d+):(%d+)$')
  if hard and tonumber(hard) < tonumber(number) then
    redis.call('SET', key, number .. ':' .. soft, 'PX', life)
  end
end
"""
# Of a tag without a record nothing is known in any case. A record never goes down: who took the lower number may be
# the one who comes later.

RAISE: Final = Script(_RAISE + "raise(KEYS[1], ARGV[1], ARGV[2]) return 1")
"""Key: tag. Arguments: generation, life (ms). Gives it to the tag, if that has a record with a lower one."""

ANNOUNCE: Final = Script(
    _TICK
    + _RAISE
    + """
local number = tick(KEYS[1], ARGV[1])
for i = 2, #KEYS do
  raise(KEYS[i], number, ARGV[4])
end
redis.call('PUBLISH', ARGV[2], number .. ' ' .. ARGV[3])
return number
"""
)
"""Keys: clock, tags of the keys that were changed. Arguments: the highest generation known, channel, message, and the
life (ms) of the records. Tells it with the next generation, and returns that."""

ASSIGN: Final = Script(
    _RAISE
    + """
for i = 1, #KEYS, 3 do
  local frame = 5 + (i - 1) / 3 * 2
  redis.call('UNLINK', KEYS[i + 1])
  if ARGV[frame + 1] == '' then
    redis.call('SET', KEYS[i], ARGV[frame])
  else
    redis.call('SET', KEYS[i], ARGV[frame], 'PX', ARGV[frame + 1])
  end
  raise(KEYS[i + 2], ARGV[1], ARGV[4])
end
redis.call('PUBLISH', ARGV[2], ARGV[1] .. ' ' .. ARGV[3])
return 1
"""
)
"""Keys: entry, lease and tag of each. Arguments: generation, channel, message, life (ms) of the records of tags, then
frame and life (ms; empty: for ever) of each."""

REMOVE: Final = Script(
    _TICK
    + _RAISE
    + """
local number = tick(KEYS[1], ARGV[1])
local removed, frame = 0, ''
for i = 2, #KEYS, 3 do
  if ARGV[5] == '1' then
    local value = redis.pcall('GET', KEYS[i])
    frame = type(value) == 'string' and value or ''
  end
  redis.call('UNLINK', KEYS[i + 1])
  removed = removed + redis.call('UNLINK', KEYS[i])
  raise(KEYS[i + 2], number, ARGV[4])
end
redis.call('PUBLISH', ARGV[2], number .. ' ' .. ARGV[3])
return {number, removed, frame}
"""
)
"""Keys: clock, then entry, lease and tag of each. Arguments: the highest generation known, channel, message, life (ms)
of the records of tags, and whether the frame is wanted. Returns the next generation, with which it tells it, how many
entries there were, and the last frame."""

DROP: Final = Script(
    f"""
redis.call('UNLINK', KEYS[2])
local frame = redis.pcall('GET', KEYS[1])
frame = type(frame) == 'string' and frame or ''
if #frame >= {GENERATION_AT + 8} and string.sub(frame, 1, {len(MAGIC)}) == '{_lua(MAGIC)}' then
  local generation = 0
  for i = {GENERATION_AT + 1}, {GENERATION_AT + 8} do
    generation = generation * 256 + string.byte(frame, i)
  end
  if generation >= tonumber(ARGV[1]) then
    return {{0, ''}}
  end
end
return {{redis.call('UNLINK', KEYS[1]), ARGV[2] == '1' and frame or ''}}
"""
)
"""Keys: entry, lease. Arguments: generation, and whether the frame is wanted. Returns how many entries there were that
began to be loaded before, and the frame. One that began later is newer than the removal, and stays."""

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
