-- One step of a holder with a lock: take it, keep it, free it. Each may be sent again without harm.
--
-- KEYS  1 lock: its holder's token, for as long as the lease   2 free: a list with an element when it was freed
-- ARGV  1 what: 'take', 'keep', 'free'   2 the caller's token   3 lease, ms
-- Returns for 'take' 0, or the ms after which another holder's lease ends unless it is kept; for 'keep' and 'free' 1,
-- or 0: the caller does not hold it.

local what, token, lease = ARGV[1], ARGV[2], ARGV[3]
local holder = redis.call('GET', KEYS[1])
if what == 'take' then
  if holder and holder ~= token then
    return math.max(1, redis.call('PTTL', KEYS[1]))
  end
  redis.call('SET', KEYS[1], token, 'PX', lease)
  redis.call('DEL', KEYS[2]) -- whoever waits by now is woken when this holder frees it
  return 0
end
if holder ~= token then
  return 0
end
if what == 'keep' then
  redis.call('PEXPIRE', KEYS[1], lease)
else
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('RPUSH', KEYS[2], 1)
  redis.call('PEXPIRE', KEYS[2], lease)
end
return 1
