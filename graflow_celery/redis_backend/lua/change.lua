-- Changes one value of a run's channel in place.
--
-- KEYS  1 channel
-- ARGV  1 what: 'set', 'delete', 'add', 'append', 'prepend'   2 key
--       3 the value, the amount, or the element, encoded   4 run ttl, s   5 the key's ttl, ms ('' if none is given)
-- Returns {1, for 'set' 1, for 'delete' whether it was there, for 'add' the sum as text, else the list's new length},
-- or {0}: the value there is of another kind, or {-1}: the sum would lose digits.
-- Numbers and lists made here are kept as '#' number and '[' length-prefixed elements; see redis_backend/values.py.
-- A key keeps its deadline, unless it is set or given a new one.

local what, key, operand = ARGV[1], ARGV[2], ARGV[3]
local present, mark = live(KEYS[1], key)
local reply, value
if what == 'delete' then
  return { 1, redis.call('HDEL', KEYS[1], key) }
elseif what == 'set' then
  reply, value, mark = 1, operand, ''
elseif what == 'add' then
  if present and string.sub(present, 1, 1) ~= '#' then
    return { 0 }
  end
  local current = present and string.sub(present, 2) or '0'
  local sum = tonumber(current) + tonumber(operand)
  if string.find(operand .. current, '[%.eEn]') then
    if sum - sum ~= 0 then -- infinite
      return { -1 }
    end
    value = string.format('%.17g', sum)
    if not string.find(value, '[%.eEn]') then
      value = value .. '.0'
    end
  else
    if math.abs(sum) > 9007199254740991 then
      return { -1 }
    end
    value = string.format('%.0f', sum)
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
if ARGV[5] ~= '' then
  mark = string.format('~%.0f|', clock() + ARGV[5])
end
redis.call('HSET', KEYS[1], key, mark .. value)
redis.call('EXPIRE', KEYS[1], ARGV[4])
return { 1, reply }
