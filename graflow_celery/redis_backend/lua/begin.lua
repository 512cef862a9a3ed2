-- Gives leave to run an attempt of a node, and the values that its parameters ask for.
--
-- KEYS  1 meta  2 nodes  3 events  4 results  5 channel
-- ARGV  1 node  2 attempt  3 worker  4 redelivered, 0 or 1  5 run ttl, s
--       6... names, looked up in results, then in the channel
-- Returns {1, losses, value or false, ...} in the order of the names, or {0, status or ''}: the attempt is stale.
-- The twin of RunState.begin in core/state.py.

local status = redis.call('HGET', KEYS[1], 'status')
if status ~= 'running' then
  return { 0, status or '' }
end
local node, attempt, worker = ARGV[1], ARGV[2], ARGV[3]
local present = redis.call('HGET', KEYS[2], node)
local losses = 0
if present then
  local state, current, lost = string.match(present, '^(%a+)|(%d+)|.*|(%d+)$')
  if current ~= attempt or state == 'succeeded' or state == 'failed' or state == 'skipped' then
    return { 0, status }
  end
  if state == 'running' then
    if ARGV[4] == '0' then
      return { 0, status }
    end
    losses = lost + 1
  end
elseif attempt ~= '1' then
  return { 0, status }
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[2], node, table.concat({ 'running', attempt, worker, now, 0, losses }, '|'))
redis.call('XADD', KEYS[3], 'MAXLEN', '~', 100000, '*',
  'event', 'node_started', 'node', node, 'attempt', attempt, 'worker', worker)
redis.call('EXPIRE', KEYS[2], ARGV[5])
local reply = { 1, losses }
for index = 6, #ARGV do
  reply[#reply + 1] = redis.call('HGET', KEYS[4], ARGV[index]) or redis.call('HGET', KEYS[5], ARGV[index])
end
return reply
