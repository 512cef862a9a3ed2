-- Moves the time at which the monitor looks at a run forward, never back; a run that is new is added.
--
-- KEYS  1 active
-- ARGV  1 run   2 ms from now

local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], 'LT', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2], ARGV[1])
