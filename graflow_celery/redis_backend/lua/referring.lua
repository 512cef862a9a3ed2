-- What of a run's values may refer to blobs: large ones, and lists and values with a deadline, which may hold large ones.
--
-- KEYS  1 a hash of values
-- ARGV  1 cursor   2 how many fields to look at, roughly
-- Returns {the next cursor, field, value, ...}; of a large one the reference.

local found = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local reply = { found[1] }
for index = 1, #found[2], 2 do
  local mark = string.sub(found[2][index + 1], 1, 1)
  if mark == '@' or mark == '[' or mark == '~' then
    reply[#reply + 1] = found[2][index]
    reply[#reply + 1] = found[2][index + 1]
  end
end
return reply
