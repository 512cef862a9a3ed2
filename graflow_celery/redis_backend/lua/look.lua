-- Reads a run's channel, and drops what it meets whose time is up.
--
-- KEYS  1 channel
-- ARGV  1 what: 'get', 'exists', 'keys'   2 key
-- Returns the form of the value, or false; 1 or 0; the keys.

local what, key = ARGV[1], ARGV[2]
if what == 'keys' then
  local keys = {}
  for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
    if live(KEYS[1], name) then
      keys[#keys + 1] = name
    end
  end
  return keys
end
local present = live(KEYS[1], key)
if what == 'exists' then
  return present and 1 or 0
end
return present
