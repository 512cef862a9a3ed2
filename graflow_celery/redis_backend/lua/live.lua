-- Stands ahead of the scripts that read a channel; see Scripts in redis_backend/client.py.
--
-- A value that was given a ttl is kept as '~', its deadline in ms by this server's clock, '|', and the form that it
-- would have without. (Fields that expire by themselves are new in Redis 7.4 and Valkey 9.)

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The form of a channel's value and its mark, '~deadline|' or ''. If its time is up it is dropped, and counts as absent:
-- false and ''.
local function live(channel, key)
  local field = redis.call('HGET', channel, key)
  if not field or string.sub(field, 1, 1) ~= '~' then
    return field, ''
  end
  local mark, deadline = string.match(field, '^(~(%d+)|)')
  if tonumber(deadline) > clock() then
    return string.sub(field, #mark + 1), mark
  end
  redis.call('HDEL', channel, key)
  return false, ''
end
