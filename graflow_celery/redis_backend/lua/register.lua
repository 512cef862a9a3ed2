-- Adds a run to those that were started, unless it is there, and drops those whose time is up.
--
-- KEYS  1 runs
-- ARGV  1 run   2 run ttl, s

local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], 'NX', now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], 0, now - ARGV[2])
