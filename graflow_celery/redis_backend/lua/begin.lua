-- Gives leave to run an attempt of a node, and the values that its parameters ask for.
--
-- KEYS  1 meta  2 nodes  3 events  4 results  5 channel  6 inputs  7 watch
-- ARGV  1 node  2 attempt  3 worker  4 ms after which the monitor is to look whether it still runs  5 run ttl, s
--       6 the graph that the node belongs to, if it was added  7 how many scopes
--       8... the groups around the node, then names, looked up in results, then in the channel
-- Returns {1, retries, cycle, input or false, value or false, ...} in the order of the names;
-- {2, max_steps}: the run has taken all of its steps; {0, status or ''}: the attempt is stale.
-- The twin of RunState.begin in core/state.py.

local meta = redis.call('HMGET', KEYS[1], 'status', 'max_steps', 'steps', 'graph')
local status = meta[1]
if status ~= 'running' and status ~= 'waiting' then
  return { 0, status or '' }
end
local node, attempt, worker = ARGV[1], ARGV[2], ARGV[3]
local final = { succeeded = true, failed = true, skipped = true }
local names = 8 + ARGV[7]
for index = 8, names - 1 do
  local around = redis.call('HGET', KEYS[2], ARGV[index])
  if around and final[string.match(around, '^%a+')] then
    return { 0, status }
  end
end
local present = redis.call('HGET', KEYS[2], node)
local losses, retries, cycle, graph = 0, 0, 0, ARGV[6]
if present then
  local state, current, _, _, _, lost, tried, again, home =
    string.match(present, '^(%a+)|(%d+)|(.*)|(%d*)|(%d*)|(%d+)|(%d+)|(%d+)|([^|]*)$')
  if current ~= attempt or state ~= 'queued' then
    return { 0, status }
  end
  losses, retries, cycle, graph = tonumber(lost), tonumber(tried), tonumber(again), home
elseif attempt ~= (string.match(meta[4] or '', '^[^.]*~(%d+)') or '1') then -- where the count of attempts began
  return { 0, status }
end
if meta[2] and tonumber(meta[3] or 0) >= tonumber(meta[2]) then
  return { 2, tonumber(meta[2]) }
end
redis.call('HINCRBY', KEYS[1], 'steps', 1)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[2], node,
  table.concat({ 'running', attempt, worker, now, 0, losses, retries, cycle, graph }, '|'))
redis.call('XADD', KEYS[3], 'MAXLEN', '~', 100000, '*',
  'event', 'node_started', 'node', node, 'attempt', attempt, 'worker', string.match(worker, '^[^#]*'))
redis.call('ZADD', KEYS[7], now + ARGV[4], node)
redis.call('EXPIRE', KEYS[2], ARGV[5])
local reply = { 1, retries, cycle, redis.call('HGET', KEYS[6], node) }
for index = names, #ARGV do
  reply[#reply + 1] = redis.call('HGET', KEYS[4], ARGV[index]) or live(KEYS[5], ARGV[index])
end
return reply
