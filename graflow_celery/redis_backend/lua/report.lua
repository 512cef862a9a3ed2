-- Reports that a worker's main process has ended, so that nobody has to wait for the end of its lease.
--
-- KEYS  1 beats   2 the monitor's lease   3 bell
-- ARGV  1 the worker
-- Returns 1, or 0: it had left, or was buried.

local beat = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0)
if beat == 0 then
  return 0
end
if beat > 0 then
  redis.call('ZADD', KEYS[1], 0 - beat, ARGV[1])
end
if redis.call('GET', KEYS[2]) == ARGV[1] then
  redis.call('DEL', KEYS[2])
end
redis.call('XADD', KEYS[3], 'MAXLEN', 100, '*', 'worker', ARGV[1])
redis.call('EXPIRE', KEYS[3], 86400)
return 1
