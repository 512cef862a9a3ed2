-- Some of the workers that live, whichever: enough to know what queues most of them consume, however many there are.
--
-- KEYS  1 beats   2 leases
-- ARGV  1 a worker's lease, ms   2 how many workers to look at
-- Returns {how many leases there are, how many workers are not known to be dead, concurrency, queues as JSON, ...} of
-- those that were looked at and live.

local time = redis.call('TIME')
local since = time[1] * 1000 + math.floor(time[2] / 1000) - ARGV[1]
local reply = { redis.call('HLEN', KEYS[2]), redis.call('ZCOUNT', KEYS[1], '(0', '+inf') }
local found = redis.call('HRANDFIELD', KEYS[2], ARGV[2], 'WITHVALUES')
for index = 1, #found, 2 do
  local beat = redis.call('ZSCORE', KEYS[1], found[index])
  if beat and tonumber(beat) > since then
    local lease = cjson.decode(found[index + 1])
    reply[#reply + 1] = lease.concurrency
    reply[#reply + 1] = cjson.encode(lease.queues)
  end
end
return reply
