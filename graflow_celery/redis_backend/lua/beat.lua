-- One beat of a worker: renews its lease, says what it holds, and notes what it received since the beat before.
--
-- KEYS  1 beats   2 leases   3 declared   4 received   5 the monitor's lease
-- ARGV  1 the worker   2 its lease, as JSON, '' if it is what it was   3, 4 a queue and how many messages of it were
--       received; and so on
-- Returns {1 if the worker had been declared dead, 1 if there is a monitor that leads, 1 if its lease is not known}.

local time = redis.call('TIME')
local added = redis.call('ZADD', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000), ARGV[1])
if ARGV[2] ~= '' then
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
  added = 0
end
for index = 3, #ARGV, 2 do
  redis.call('HINCRBY', KEYS[4], ARGV[index], ARGV[index + 1])
end
return { redis.call('ZREM', KEYS[3], ARGV[1]), redis.call('EXISTS', KEYS[5]), added }
