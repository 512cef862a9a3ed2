-- Carries one transition of a run out, or refuses it as stale. The twin of RunState.apply in core/state.py.
--
-- KEYS  1 meta  2 nodes  3 joins  4 outbox  5 events  6 results  7 errors  8 channel  9 end
-- ARGV  1 the transition as JSON:
--           event, node, attempt, becomes, next, consumes, ack, ends, reason, worker, duration (ms),
--           arrivals  [[key, needs, live, quorum, emission, emission], ...]
--           emissions [[command, weight, expected, event, node, attempt], ...]
--           create    {field: value, ...}: makes the run, if it is not there yet
--       2 the value that belongs to it ('' if none)   3 the error ('' if none)
--       4 dispatch grace, ms   5 run ttl, s   6 result ttl, s
-- Returns {1, status, command, expected, command, expected, ...} or {0, status or ''}.

local meta, nodes, joins, outbox, events = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local t = cjson.decode(ARGV[1])
local grace, run_ttl, result_ttl = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local final = { succeeded = true, failed = true, skipped = true }

local status = redis.call('HGET', meta, 'status')
if t.create then
  if status then
    return { 0, status }
  end
  status = 'running'
  redis.call('HSET', meta, 'status', status, 'started', now, 'outstanding', 0)
  for field, value in pairs(t.create) do
    redis.call('HSET', meta, field, value)
  end
end
if status ~= 'running' then
  return { 0, status or '' }
end

local function record(...)
  redis.call('XADD', events, 'MAXLEN', '~', 100000, '*', ...)
end

if t.node then
  local present = redis.call('HGET', nodes, t.node)
  local started, losses = 0, 0
  if present then
    local state, attempt, since, lost = string.match(present, '^(%a+)|(%d+)|.*|(%d*)|%d*|(%d+)$')
    if final[state] or tonumber(attempt) ~= t.attempt then
      return { 0, status }
    end
    started, losses = since, lost
  elseif t.attempt > 1 then
    return { 0, status }
  end
  if t.becomes then
    local attempt = t.next > 0 and t.next or t.attempt
    if t.next > 0 then
      losses = 0
    end
    redis.call('HSET', nodes, t.node,
      table.concat({ t.becomes, attempt, t.worker or '', started, t.duration or 0, losses }, '|'))
    if final[t.becomes] then
      redis.call('HINCRBY', meta, t.becomes, 1)
    end
    if t.becomes == 'succeeded' then
      redis.call('HSET', meta, 'last_node', t.node)
    end
  end
  if ARGV[2] ~= '' then
    redis.call('HSET', KEYS[6], t.node, ARGV[2])
    redis.call('EXPIRE', KEYS[6], run_ttl)
    redis.call('HDEL', KEYS[7], t.node)
  end
  if ARGV[3] ~= '' then
    redis.call('HSET', KEYS[7], t.node, ARGV[3])
    redis.call('EXPIRE', KEYS[7], run_ttl)
  end
  record('event', t.event, 'node', t.node, 'attempt', t.attempt, 'worker', t.worker or '',
    'duration', t.duration or 0, 'reason', t.reason or '')
else
  record('event', t.event, 'reason', t.reason or '')
end

if t.ack then
  redis.call('ZREM', outbox, t.ack)
end

local emissions = {}
for _, emission in ipairs(t.emissions) do
  emissions[#emissions + 1] = emission
end
for _, arrival in ipairs(t.arrivals) do
  local key = arrival[1]
  local arrived = redis.call('HINCRBY', joins, key, 1)
  local live = redis.call('HINCRBY', joins, key .. '\0', arrival[3])
  if arrived == arrival[2] then
    emissions[#emissions + 1] = live >= arrival[4] and arrival[5] or arrival[6]
  end
end

local reply = { 1, status }
local outstanding = 0 - t.consumes -- not -0, which HINCRBY refuses
for _, emission in ipairs(emissions) do
  outstanding = outstanding + emission[2]
  redis.call('ZADD', outbox, now + grace, emission[1])
  reply[#reply + 1] = emission[1]
  reply[#reply + 1] = emission[3]
  if emission[4] ~= '' then
    record('event', emission[4], 'node', emission[5], 'attempt', emission[6], 'count', emission[2])
  end
end
outstanding = redis.call('HINCRBY', meta, 'outstanding', outstanding)

if t.ends then
  status = t.ends
  redis.call('HSET', meta, 'failed_node', t.node or '')
elseif outstanding == 0 then
  status = 'succeeded'
end
if status ~= 'running' then
  local reason = t.ends and t.reason or ''
  redis.call('HSET', meta, 'status', status, 'reason', reason, 'finished', now)
  redis.call('DEL', joins, outbox)
  record('event', 'run_' .. status, 'reason', reason)
  redis.call('XADD', KEYS[9], '*', 'event', 'run_' .. status, 'reason', reason)
  for _, key in ipairs(KEYS) do
    redis.call('EXPIRE', key, result_ttl)
  end
  reply[2] = status
else
  for _, key in ipairs({ meta, nodes, joins, outbox, events }) do
    redis.call('EXPIRE', key, run_ttl)
  end
end
return reply
