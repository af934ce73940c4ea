"""What Redis does with a journal in one step.

The keys of each call are those of `_stream.Names`, in its order, all in one slot: the stream of tickets, the newest
write of each key (`sequence:writes:frame`), the keys that wait by the number of their first write that is not stored,
those that wait for another attempt by its time, their attempts in vain, dead letters (`attempts:at:error:frame`), their
order, and the last number.

A key that waits has one message in the stream or is among those that wait for another attempt, and never both. Where
the counts disagree, Redis has thrown away a part, which is noticed before anything is taken: what is left is put in
order.
The number begins with the time in microseconds, so that one which was lost goes on above all before.
Commands that need memory come after one that needs none, so that a Redis which is full refuses a script as a whole.
"""

from __future__ import annotations

from typing import Final

from aurelis.cache.layers._link import Script

GROUP: Final = b"drain"

_COMMON: Final = """
local stream, values, order, retries, attempts, letters, buried, clock =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local group = 'drain'
local function whole(number) return string.format('%.0f', number) end
local function present()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
local function following()
  if redis.call('EXISTS', clock) == 0 then
    local time = redis.call('TIME')
    redis.call('SET', clock, whole(tonumber(time[1]) * 1000000 + tonumber(time[2])))
  end
  return redis.call('INCR', clock)
end
local function opened(value)
  local first = string.find(value, ':', 1, true)
  local second = string.find(value, ':', first + 1, true)
  return tonumber(string.sub(value, 1, first - 1)), tonumber(string.sub(value, first + 1, second - 1)),
    string.sub(value, second + 1)
end
local function closed(sequence, writes, frame)
  return whole(sequence) .. ':' .. whole(writes) .. ':' .. frame
end
local function room() redis.call('XDEL', stream, '0-1') end  -- removes nothing, and what follows is not refused
local function queue(key) redis.call('XADD', stream, '*', 'k', key) end
local function wait(key, sequence, frame)
  redis.call('ZADD', order, whole(sequence), key)
  redis.call('HSET', values, key, closed(sequence, 1, frame))
  queue(key)
end
local function mine(consumer, id)
  local found = redis.call('XPENDING', stream, group, id, id, 1)
  return found[1] ~= nil and found[1][2] == consumer
end
local function done(id)
  redis.call('XACK', stream, group, id)
  redis.call('XDEL', stream, id)
end
"""

APPEND: Final = Script(
    _COMMON
    + """
local key, frame = ARGV[1], ARGV[2]
local old = redis.call('HGET', values, key)
local waiting = redis.call('ZCARD', order)
if not old and waiting + redis.call('HLEN', letters) >= tonumber(ARGV[3])
  and redis.call('HEXISTS', letters, key) == 0 then
  return {}
end
local sequence = following()
if old then
  local _, writes = opened(old)
  redis.call('HSET', values, key, closed(sequence, writes + 1, frame))
  redis.call('HDEL', attempts, key)
else
  wait(key, sequence, frame)
  redis.call('HDEL', letters, key)
  redis.call('ZREM', buried, key)
  waiting = waiting + 1
end
return {sequence, waiting}
"""
)
"""Arguments: key, frame, limit. Returns the number and how many wait, or nothing if there is no room."""

TAKE: Final = Script(
    _COMMON
    + """
local consumer, lease, count = ARGV[1], ARGV[2], tonumber(ARGV[3])
local interval, upto = tonumber(ARGV[4]), tonumber(ARGV[5])
local now, found = present(), {}
local function took(messages)
  for _, message in ipairs(messages or {}) do
    local key = message and message[2] and message[2][2]
    local value = key and redis.call('HGET', values, key)
    if value then
      local sequence, writes, frame = opened(value)
      local vain = redis.call('HGET', attempts, key) or '0'
      found[#found + 1] = {message[1], key, sequence, writes, tonumber(vain), frame}
    elseif message then
      done(message[1])
    end
  end
end
local function mend()
  room()
  local found = {}
  for _, message in ipairs(redis.call('XRANGE', stream, '-', '+')) do
    local key = message[2][2]
    if found[key] or redis.call('HEXISTS', values, key) == 0 then
      done(message[1])
    else
      found[key] = true
    end
  end
  for _, key in ipairs(redis.call('ZRANGE', retries, 0, -1)) do
    if found[key] or redis.call('HEXISTS', values, key) == 0 then
      redis.call('ZREM', retries, key)
    else
      found[key] = true
    end
  end
  for _, key in ipairs(redis.call('ZRANGE', order, 0, -1)) do
    if redis.call('HEXISTS', values, key) == 0 then redis.call('ZREM', order, key) end
  end
  for _, key in ipairs(redis.call('HKEYS', values)) do
    local sequence = opened(redis.call('HGET', values, key))
    redis.call('ZADD', order, 'NX', whole(sequence), key)
  end
  for _, key in ipairs(redis.call('ZRANGE', order, 0, -1)) do
    if not found[key] then queue(key) end
  end
end
local known = redis.call('ZCARD', order)
if redis.call('HLEN', values) ~= known or redis.call('XLEN', stream) + redis.call('ZCARD', retries) ~= known then
  mend()
end
local groups = redis.pcall('XINFO', 'GROUPS', stream)
if groups.err or #groups == 0 then
  room()
  redis.call('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
  groups = redis.call('XINFO', 'GROUPS', stream)
end
local again = redis.call('ZRANGEBYSCORE', retries, '-inf', whole(now), 'LIMIT', 0, count)
if #again == 0 then  -- noted by a clock that has been set back since
  again = redis.call('ZRANGEBYSCORE', retries, whole(now + tonumber(ARGV[6])), '+inf', 'LIMIT', 0, count)
end
for _, key in ipairs(again) do
  redis.call('ZREM', retries, key)
  queue(key)
end
took(redis.call('XAUTOCLAIM', stream, group, consumer, lease, '0-0', 'COUNT', count)[2])
local unread = redis.call('XLEN', stream) - redis.call('XPENDING', stream, group)[1]
if unread > 0 and #found < count then
  local ready = #again > 0 or unread >= count
  if not ready then
    local first = redis.call('ZRANGE', order, 0, 0, 'WITHSCORES')
    ready = first[2] ~= nil and tonumber(first[2]) <= upto
  end
  if not ready then
    local last = '0-0'
    for i = 1, #groups[1], 2 do
      if groups[1][i] == 'last-delivered-id' then last = groups[1][i + 1] end
    end
    local oldest = redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', 1)[1]
    local since = oldest and tonumber(string.match(oldest[1], '^%d+'))
    ready = since == nil or since > now or now - since >= interval
  end
  if ready then
    local read = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', count - #found, 'STREAMS', stream, '>')
    took(read and read[1] and read[1][2])
  end
end
return found
"""
)
"""Arguments: consumer, lease (ms), count, interval (ms), number, the longest delay (ms). Returns tickets."""

RENEW: Final = Script(
    _COMMON
    + """
local held = 0
for i = 2, #ARGV do
  if mine(ARGV[1], ARGV[i]) then
    redis.call('XCLAIM', stream, group, ARGV[1], 0, ARGV[i], 'JUSTID')
    held = held + 1
  end
end
return held
"""
)
"""Arguments: consumer, messages. Returns how many of them are still the consumer's."""

SETTLE: Final = Script(
    _COMMON
    + """
local consumer, count, at = ARGV[1], tonumber(ARGV[2]), 3
local now = present()
local written, coalesced, retried, dead = 0, 0, 0, {}
for _ = 1, count do
  local id, key, sequence, writes = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  at = at + 4
  local value = mine(consumer, id) and redis.call('HGET', values, key)
  if value then
    done(id)
    redis.call('HDEL', attempts, key)
    local newest, all, frame = opened(value)
    if newest == sequence then
      redis.call('HDEL', values, key)
      redis.call('ZREM', order, key)
    else
      redis.call('ZADD', order, whole(sequence + 1), key)
      redis.call('HSET', values, key, closed(newest, all - writes, frame))
      queue(key)
    end
    written, coalesced = written + 1, coalesced + writes - 1
  end
end
while at <= #ARGV do
  local id, key, sequence, delay = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local last, problem = ARGV[at + 4] == '1', ARGV[at + 5]
  at = at + 6
  local value = mine(consumer, id) and redis.call('HGET', values, key)
  if value then
    done(id)
    local newest, all, frame = opened(value)
    if newest == sequence and last then
      local vain = tonumber(redis.call('HGET', attempts, key) or '0') + 1
      redis.call('HDEL', values, key)
      redis.call('ZREM', order, key)
      redis.call('HDEL', attempts, key)
      redis.call('HSET', letters, key, whole(vain) .. ':' .. whole(now) .. ':' .. problem .. ':' .. frame)
      redis.call('ZADD', buried, whole(sequence), key)
      coalesced = coalesced + all - 1
      dead[#dead + 1] = key
    else
      if newest == sequence then
        redis.call('HINCRBY', attempts, key, 1)
      else
        redis.call('HDEL', attempts, key)
      end
      redis.call('ZADD', retries, whole(now + delay), key)
      retried = retried + 1
    end
  end
end
return {written, coalesced, retried, dead}
"""
)
"""Arguments: consumer, how many were written, of each: message, key, number, writes; then of each that was not:
message, key, number, delay (ms), whether it was the last attempt, error. Counts those alone that are still the
consumer's."""

BACKLOG: Final = Script(
    _COMMON
    + """
local first = redis.call('ZRANGE', order, 0, 0, 'WITHSCORES')
return {redis.call('ZCARD', order), redis.call('HLEN', letters), first[2] and tonumber(first[2]) or -1,
  tonumber(redis.call('GET', clock) or '0')}
"""
)
"""Returns how many wait, dead letters, the first number or -1, and the last."""

LETTERS: Final = Script(
    _COMMON
    + """
local found = {}
local names = redis.call('ZRANGE', buried, 0, tonumber(ARGV[1]) - 1, 'WITHSCORES')
for i = 1, #names, 2 do
  local value = redis.call('HGET', letters, names[i])
  if value then found[#found + 1] = {names[i], tonumber(names[i + 1]), value} end
end
return found
"""
)
"""Argument: count. Returns key, number and value of each."""

REPLAY: Final = Script(
    _COMMON
    + """
local names = {}
if ARGV[1] == '' then
  names = redis.call('ZRANGEBYSCORE', buried, '-inf', ARGV[2], 'LIMIT', 0, tonumber(ARGV[3]))
else
  for i = 4, #ARGV do names[#names + 1] = ARGV[i] end
end
local replayed = {}
for _, key in ipairs(names) do
  local value = redis.call('HGET', letters, key)
  redis.call('ZREM', buried, key)
  redis.call('HDEL', letters, key)
  if value then
    local at = 0
    for _ = 1, 3 do at = string.find(value, ':', at + 1, true) end
    wait(key, following(), string.sub(value, at + 1))
    replayed[#replayed + 1] = key
  end
end
return replayed
"""
)
"""Arguments: `keys` or nothing, a number, a count, keys. Returns the keys of those that wait again."""

LEAVE: Final = Script(
    _COMMON
    + """
local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, group)
if consumers.err then return 0 end
for _, consumer in ipairs(consumers) do
  local about = {}
  for i = 1, #consumer, 2 do about[consumer[i]] = consumer[i + 1] end
  if about.pending == 0 and (about.name == ARGV[1] or about.idle > tonumber(ARGV[2])) then
    redis.call('XGROUP', 'DELCONSUMER', stream, group, about.name)
  end
end
return 1
"""
)
"""Arguments: consumer, milliseconds. Forgets the consumer, and others that have had nothing to do for so long."""
