-- Takes or keeps the monitor's lease, and notes that somebody looked.
--
-- If nobody looked for as long as a worker's lease lasts, the server or all monitors were away: the leases that ran out
-- meanwhile prove nothing, and workers get the time of one lease to beat again.
--
-- KEYS  1 the monitor's lease   2 ticks   3 beats   4 leases   5 declared   6 received   7 bell
-- ARGV  1 name   2 lease, ms   3 a worker's lease, ms
-- Returns {0} if another one holds the lease, else
-- {1, ms for which a lease that ran out proves nothing, ms until somebody can be declared dead, -1 if there is nobody}.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return { 0 }
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local past = redis.call('HMGET', KEYS[2], 'at', 'mercy')
local mercy = tonumber(past[2] or 0)
if past[1] and now - past[1] > tonumber(ARGV[3]) then
  mercy = now + ARGV[3]
end
redis.call('HSET', KEYS[2], 'at', now, 'mercy', mercy)
for index = 2, #KEYS do
  redis.call('EXPIRE', KEYS[index], 86400)
end
local first = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
local wait = -1
if first[2] then
  local reported = tonumber(first[2]) < 0
  wait = reported and 0 or math.max(0, first[2] + ARGV[3] - now, mercy - now)
end
return { 1, math.max(0, mercy - now), wait }
