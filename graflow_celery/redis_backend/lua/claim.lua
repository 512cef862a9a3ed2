-- Hands out the commands of a run that are due and moves their due time on, so that one caller carries each out.
--
-- KEYS  1 outbox
-- ARGV  1 grace, ms   2 how many at most
-- Returns the commands.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], 0, now, 'LIMIT', 0, ARGV[2])
for _, command in ipairs(due) do
  redis.call('ZADD', KEYS[1], now + ARGV[1], command)
end
return due
