-- One beat of a worker: renews its lease and notes the time by this server's clock.
--
-- KEYS  1 the worker's lease   2 all workers
-- ARGV  1 name   2 description, JSON   3 lease, ms
-- Returns the server's time, ms.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('ZADD', KEYS[2], now, ARGV[1])
return now
