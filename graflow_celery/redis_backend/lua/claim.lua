-- Hands out the commands of a run that are due and moves their due time on, so that one caller carries each out.
--
-- KEYS  1 outbox
-- ARGV  1 grace, ms   2 how many at most
-- Returns how many ms from now the next one is due, -1 if there is none, and the commands.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], 0, now, 'LIMIT', 0, ARGV[2])
for _, command in ipairs(due) do
  redis.call('ZADD', KEYS[1], now + ARGV[1], command)
end
local next = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
table.insert(due, 1, next[2] and math.max(0, next[2] - now) or -1)
return due
