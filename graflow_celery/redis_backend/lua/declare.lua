-- Declares workers dead whose lease has run out, or whose death was reported. They stay until they are buried, so that
-- a monitor that dies over its work leaves it to the next one.
--
-- KEYS  1 beats   2 leases   3 declared
-- ARGV  1 a worker's lease, ms; '' to take those alone whose death was reported   2 how many at most
-- Returns {ms by this server's clock, worker, the score of its beat, its lease as JSON, ...}. The score of a death that
-- was reported is the last beat with the sign turned.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local before = ARGV[1] == '' and 0 or now - ARGV[1]
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', before, 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local reply = { now }
for index = 1, #found, 2 do
  redis.call('ZADD', KEYS[3], now, found[index])
  reply[#reply + 1] = found[index]
  reply[#reply + 1] = found[index + 1]
  reply[#reply + 1] = redis.call('HGET', KEYS[2], found[index]) or ''
end
redis.call('ZREMRANGEBYSCORE', KEYS[3], 0, now - 86400000)
return reply
