-- Forgets a worker that was declared dead, unless it has beaten since.
--
-- KEYS  1 beats   2 leases
-- ARGV  1 the worker   2 the score with which it was declared
-- Returns 1, or 0: it lives.

if redis.call('ZSCORE', KEYS[1], ARGV[1]) ~= ARGV[2] then
  return 0
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return 1
