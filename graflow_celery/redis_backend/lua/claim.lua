-- Hands out what of a run is late: commands that are due, and nodes at which it is time to look. Both are moved on, so
-- that one caller at a time sees to each.
--
-- KEYS  1 outbox   2 watch   3 nodes   4 meta
-- ARGV  1 ms until a command is due again   2 ms until a node is looked at again   3 how many of each at most
--       4 1: what was sent, or is waited for, and not only what is due: a process that may have had to do with it died
--       5 ms after which what the run needs of the content store is to be renewed
-- Returns {status or '', graph, ms until the next of them, -1 if there is none, 1 if it is to be renewed now, how many
-- commands, command, ..., node, its record or '', ...}.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local meta = redis.call('HMGET', KEYS[4], 'status', 'graph', 'renewed', 'started')
if meta[1] ~= 'running' and meta[1] ~= 'waiting' then
  return { meta[1] or '', meta[2] or '', -1, 0, 0 }
end
local renewed = tonumber(meta[3] or meta[4] or 0)
local renews = now - renewed >= tonumber(ARGV[5])
if renews then
  redis.call('HSET', KEYS[4], 'renewed', now)
end
local sweep = ARGV[4] == '1'
local commands = {}
for _, command in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], 0, sweep and now + ARGV[1] or now, 'LIMIT', 0, ARGV[3])) do
  -- A timer is never early.
  if not sweep or not string.find(command, '^%["expire') or redis.call('ZSCORE', KEYS[1], command) + 0 <= now then
    redis.call('ZADD', KEYS[1], now + ARGV[1], command)
    commands[#commands + 1] = command
  end
end
local reply = { meta[1], meta[2], -1, renews and 1 or 0, #commands, unpack(commands) }
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], 0, sweep and '+inf' or now, 'LIMIT', 0, ARGV[3])) do
  local present = redis.call('HGET', KEYS[3], node) or ''
  -- What is queued for later was not sent yet: nobody can have lost it.
  local later = sweep and string.find(present, '^queued') and redis.call('ZSCORE', KEYS[2], node) - ARGV[2] > now
  if not later then
    redis.call('ZADD', KEYS[2], now + ARGV[2], node)
    reply[#reply + 1] = node
    reply[#reply + 1] = present
  end
end
for index = 1, 2 do
  local next = redis.call('ZRANGE', KEYS[index], 0, 0, 'WITHSCORES')[2]
  if next and (reply[3] < 0 or next - now < reply[3]) then
    reply[3] = math.max(0, next - now)
  end
end
return reply
