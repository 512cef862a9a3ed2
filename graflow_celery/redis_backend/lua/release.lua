-- Lets a run that has ended go of a value's blob. What no run holds any more stays readable for the result ttl.
--
-- KEYS  1 holders   2 blob
-- ARGV  1 the run, as it holds it   2 result ttl, s

if redis.call('SREM', KEYS[1], ARGV[1]) == 0 then
  return 0
end
local ttl = tonumber(ARGV[2])
if redis.call('SCARD', KEYS[1]) == 0 or redis.call('TTL', KEYS[2]) < ttl then
  redis.call('EXPIRE', KEYS[2], ttl)
end
return 1
