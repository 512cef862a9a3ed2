-- Removes a blob that nothing refers to, unless that has changed meanwhile.
--
-- KEYS  1 blob   2 holders
-- ARGV  1 seconds that it has left at the most: what has more was uploaded or renewed lately   2... holders that count
--       for nothing, as their runs are gone
-- Returns 1 if it was removed.

local left = redis.call('TTL', KEYS[1])
if left < 0 or left > tonumber(ARGV[1]) then
  return 0
end
local gone = {}
for index = 2, #ARGV do
  gone[ARGV[index]] = true
end
for _, holder in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  if not gone[holder] then
    return 0
  end
end
redis.call('UNLINK', KEYS[1], KEYS[2])
return 1
