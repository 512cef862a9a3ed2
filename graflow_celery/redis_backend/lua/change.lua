-- Changes one value of a run's channel in place.
--
-- KEYS  1 channel
-- ARGV  1 what: 'add', 'append', 'prepend'   2 key   3 the amount, or the element, encoded   4 run ttl, s
-- Returns {1, the sum as text or the list's new length}, or {0}: the value there is of another kind.
-- Numbers and lists made here are kept as '#' number and '[' length-prefixed elements; see redis_backend/channel.py.

local what, key, operand = ARGV[1], ARGV[2], ARGV[3]
local present = redis.call('HGET', KEYS[1], key)
local reply, value
if what == 'add' then
  if present and string.sub(present, 1, 1) ~= '#' then
    return { 0 }
  end
  local current = present and string.sub(present, 2) or '0'
  if string.find(operand .. current, '[%.eEn]') then
    value = string.format('%.17g', tonumber(current) + tonumber(operand))
    if not string.find(value, '[%.eEn]') then
      value = value .. '.0'
    end
  else
    value = string.format('%.0f', tonumber(current) + tonumber(operand))
  end
  reply, value = value, '#' .. value
else
  if present and string.sub(present, 1, 1) ~= '[' then
    return { 0 }
  end
  local element = struct.pack('>I4', #operand) .. operand
  local count, body = 0, ''
  if present then
    count, body = struct.unpack('>I4', present, 2), string.sub(present, 6)
  end
  body = what == 'append' and body .. element or element .. body
  reply, value = count + 1, '[' .. struct.pack('>I4', count + 1) .. body
end
redis.call('HSET', KEYS[1], key, value)
redis.call('EXPIRE', KEYS[1], ARGV[4])
return { 1, reply }
