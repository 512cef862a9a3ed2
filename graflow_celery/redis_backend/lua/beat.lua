-- One beat of a worker: renews its lease, says what it holds, and notes what it received since the beat before.
--
-- KEYS  1 beats   2 leases   3 declared   4 received   5 the monitor's lease
-- ARGV  1 the worker   2 its lease, as JSON   3, 4 a queue and how many messages of it were received; and so on
-- Returns {ms by this server's clock, 1 if the worker had been declared dead, 1 if there is a monitor that leads}.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
for index = 3, #ARGV, 2 do
  redis.call('HINCRBY', KEYS[4], ARGV[index], ARGV[index + 1])
end
return { now, redis.call('ZREM', KEYS[3], ARGV[1]), redis.call('EXISTS', KEYS[5]) }
