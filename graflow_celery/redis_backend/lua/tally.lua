-- Adds what was counted from runs' events to the totals, unless another process has done so since they were read.
--
-- KEYS  1 totals   2 runs   3 turns   4 ended
-- ARGV  1 the version that was read   2 seconds for which all of this is kept   3 seconds for which an ended run is
--       4 {add: {field: count}, runs: {run: how far it is counted}, ended: [run], since: up to when runs were found}
-- Returns 1, or 0: another one was faster, and nothing was changed.

local version = redis.call('HGET', KEYS[1], 'version') or '0'
if version ~= ARGV[1] then
  return 0
end
local told = cjson.decode(ARGV[4])
local now = tonumber(redis.call('TIME')[1])
redis.call('HINCRBY', KEYS[1], 'version', 1)
redis.call('HSET', KEYS[1], 'since', told.since)
for field, count in pairs(told.add) do
  redis.call('HINCRBY', KEYS[1], field, count)
end
for run, progress in pairs(told.runs) do
  redis.call('HSET', KEYS[2], run, progress)
  redis.call('ZADD', KEYS[3], now, run)
  redis.call('ZREM', KEYS[4], run)
end
for _, run in ipairs(told.ended) do
  redis.call('ZREM', KEYS[3], run)
  redis.call('ZADD', KEYS[4], now, run)
end
for _, run in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], 0, now - ARGV[3], 'LIMIT', 0, 1000)) do
  redis.call('ZREM', KEYS[4], run)
  redis.call('HDEL', KEYS[2], run)
end
for _, key in ipairs(KEYS) do
  redis.call('EXPIRE', key, ARGV[2])
end
return 1
