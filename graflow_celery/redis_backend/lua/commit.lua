-- Carries one transition of a run out, or refuses it as stale. The twin of RunState.apply in core/state.py.
--
-- KEYS  1 meta  2 nodes  3 joins  4 outbox  5 events  6 results  7 errors  8 channel  9 end  10 inputs  11 feedback
--       12 checkpoints  13 watch  14 blobs
-- ARGV  1 the transition as JSON:
--           event, node, attempt, scopes, graph: of added tasks, holder, becomes, next, retries, losses, mirror, consumes,
--           declares, jumps, acks, pauses, resumes, ends, reason, worker, duration (ms), keep: the name of the result or error
--           arrivals  [[key, needs, live, quorum, [emission, ...], [emission, ...]], ...]
--           emissions [[command, weight, expected, delay (ms), reenters, event, node, attempt, graph], ...]
--           draw      [cursor, limit, command before the number, command after it, key before, key after, graph,
--                     attempt]
--           first     the number of first attempts where it was decided: what dates from before a retry is stale
--           create    {field: value, ...}: makes the run, if it is not there yet
--       2 the value that belongs to it ('' if none)   3 the error ('' if none)
--       4 dispatch grace, ms   5 run ttl, s   6 result ttl, s
--       7 the next attempt's input ('' if none)   8, 9 a feedback record, its id and itself ('' if none)
--       10 ms after which the monitor is to look at what was queued and has not ended
--       11... keys and values of the channel of a run that is made
-- Returns {1, status, ended nodes, command, expected, command, expected, ...} or {0, status or ''}; at the run's end
-- the last item is how many blobs are to be let go of.

local meta, nodes, joins, outbox, events = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local t = cjson.decode(ARGV[1])
local grace, run_ttl, result_ttl = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local watch, patience = KEYS[13], tonumber(ARGV[10])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local final = { succeeded = true, failed = true, skipped = true }
local RECORD = '^(%a+)|(%d+)|(.*)|(%d*)|(%d*)|(%d+)|(%d+)|(%d+)|([^|]*)$'

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
  for index = 11, #ARGV, 2 do
    redis.call('HSET', KEYS[8], ARGV[index], ARGV[index + 1])
  end
  redis.call('EXPIRE', KEYS[8], run_ttl)
end
if status ~= 'running' and status ~= 'waiting' then
  return { 0, status or '' }
end

local function record(...)
  redis.call('XADD', events, 'MAXLEN', '~', 100000, '*', ...)
end

-- "HASH~3", or "HASH~3.TAG" where a secret is set: since a retry of the run, attempts are counted from 3 on
local first = tonumber(string.match(redis.call('HGET', meta, 'graph') or '', '^[^.]*~(%d+)') or 1)
if t.node then
  if t.first ~= first then
    return { 0, status }
  end
  for _, scope in ipairs(t.scopes) do
    local around = redis.call('HGET', nodes, scope)
    if around and final[string.match(around, '^%a+')] then
      return { 0, status }
    end
  end
  local present = redis.call('HGET', nodes, t.node)
  local started, losses, retries, cycle, graph = '', 0, 0, 0, t.graph or ''
  if present then
    local state, attempt, worker, since, _, lost, tried, again, home = string.match(present, RECORD)
    if final[state] or tonumber(attempt) ~= t.attempt then
      return { 0, status }
    end
    if t.holder and (state == 'waiting' or worker ~= t.holder) then
      return { 0, status }
    end
    started, losses, retries, cycle, graph = since, lost, tried, again, home
  elseif (t.attempt ~= 0 and t.attempt ~= first) or (t.holder and t.holder ~= '') then
    return { 0, status }
  end
  if t.becomes then
    local attempt = t.next > 0 and t.next or t.attempt
    local worker = t.becomes ~= 'queued' and t.worker or ''
    local text = table.concat({ t.becomes, attempt, worker, started, t.duration or 0, losses + t.losses,
      retries + t.retries, cycle, graph }, '|')
    redis.call('HSET', nodes, t.node, text)
    if t.mirror then
      redis.call('HSET', nodes, t.mirror, text)
    end
    if t.becomes ~= 'queued' then
      redis.call('ZREM', watch, t.node)
    end
    if final[t.becomes] then
      redis.call('HINCRBY', meta, t.becomes, 1)
      redis.call('HINCRBY', meta, 'ended', 1)
    end
    if t.becomes == 'succeeded' then
      redis.call('HSET', meta, 'last_node', t.node)
    end
  end
  if ARGV[3] ~= '' and t.becomes then
    redis.call('HSET', KEYS[7], t.keep, ARGV[3])
    redis.call('EXPIRE', KEYS[7], run_ttl)
    redis.call('HDEL', KEYS[6], t.keep)
  elseif ARGV[2] ~= '' then
    redis.call('HSET', KEYS[6], t.keep, ARGV[2])
    redis.call('EXPIRE', KEYS[6], run_ttl)
    redis.call('HDEL', KEYS[7], t.keep)
  end
  if ARGV[7] ~= '' then
    redis.call('HSET', KEYS[10], t.node, ARGV[7])
    redis.call('EXPIRE', KEYS[10], run_ttl)
  end
  if ARGV[8] ~= '' then
    redis.call('HSET', KEYS[11], ARGV[8], ARGV[9])
    redis.call('EXPIRE', KEYS[11], run_ttl)
  end
  record('event', t.event, 'node', t.node, 'attempt', t.attempt, 'worker', t.worker or '',
    'duration', t.duration or 0, 'reason', t.reason or '', 'request', ARGV[8])
else
  record('event', t.event, 'reason', t.reason or '')
end

for _, command in ipairs(t.acks) do
  redis.call('ZREM', outbox, command)
end
if t.jumps then
  local field = '\0jump:' .. t.jumps[1]
  local present = redis.call('HGET', joins, field)
  local targets = present and cjson.decode(present) or {}
  for _, target in ipairs(t.jumps[2]) do
    targets[#targets + 1] = target
  end
  redis.call('HSET', joins, field, cjson.encode(targets))
end
for _, declared in ipairs(t.declares) do
  redis.call('HSETNX', joins, '\0n:' .. declared[1], declared[2])
end

local emissions = {}
for _, emission in ipairs(t.emissions) do
  emissions[#emissions + 1] = emission
end
for _, arrival in ipairs(t.arrivals) do
  local key, needs, quorum = arrival[1], arrival[2], arrival[4]
  local arrived = redis.call('HINCRBY', joins, key, 1)
  local live = redis.call('HINCRBY', joins, key .. '\0', arrival[3])
  if needs == 0 then
    needs = tonumber(redis.call('HGET', joins, '\0n:' .. key) or 0)
  end
  if arrived == needs then
    local enough = quorum > 0 and quorum or needs
    for _, emission in ipairs(live >= enough and arrival[5] or arrival[6]) do
      emissions[#emissions + 1] = emission
    end
  end
end
if t.draw then
  local cursor, limit = '\0n:' .. t.draw[1], '\0n:' .. t.draw[2]
  local number, most = tonumber(redis.call('HGET', joins, cursor) or 0), tonumber(redis.call('HGET', joins, limit) or 0)
  while number < most do
    local present = redis.call('HGET', nodes, t.draw[5] .. number .. t.draw[6])
    if not present or not final[string.match(present, '^%a+')] then
      break
    end
    number = number + 1 -- it was kept by a retry
  end
  if number < most then
    redis.call('HSET', joins, cursor, number + 1)
    emissions[#emissions + 1] = { t.draw[3] .. number .. t.draw[4], 0, 0, 0, '', 'node_queued',
      t.draw[5] .. number .. t.draw[6], t.draw[8], t.draw[7] }
  end
end

local reply = { 1, status, 0 }
local outstanding = 0 - t.consumes -- not -0, which HINCRBY refuses
for _, emission in ipairs(emissions) do
  local command, weight, expected, delay, reenters, event, node, attempt, graph = unpack(emission)
  outstanding = outstanding + weight
  -- What is sent at once, or with a countdown, is due when it should have been; a timer is due at its time.
  redis.call('ZADD', outbox, now + delay + ((delay == 0 or event ~= '') and grace or 0), command)
  reply[#reply + 1] = command
  reply[#reply + 1] = expected
  if event ~= '' then
    local losses, retries, cycle = 0, 0, 0
    if reenters ~= '' then
      -- One that is reached for the first time in a later pass did not run before.
      local first = redis.call('HGET', nodes, reenters)
      local ran = first and string.match(first, '^%a+') ~= 'skipped'
      if redis.call('HSETNX', joins, '\0n:cycle:' .. reenters, ran and 1 or 0) == 0 then
        redis.call('HINCRBY', joins, '\0n:cycle:' .. reenters, 1)
      end
      cycle = tonumber(redis.call('HGET', joins, '\0n:cycle:' .. reenters))
    end
    if attempt > 1 then
      local present = redis.call('HGET', nodes, node)
      if present then
        local _, _, _, _, _, lost, tried, again = string.match(present, RECORD)
        losses, retries, cycle = lost, tried, cycle > 0 and cycle or again
      end
    end
    local state = event == 'group_opened' and 'running' or 'queued'
    redis.call('HSET', nodes, node, table.concat({ state, attempt, '', now + delay, 0, losses, retries, cycle, graph }, '|'))
    redis.call('ZADD', watch, now + delay + patience, node)
    record('event', event, 'node', node, 'attempt', attempt, 'count', weight)
  end
end
outstanding = redis.call('HINCRBY', meta, 'outstanding', outstanding)

if t.ends then
  status = t.ends
  redis.call('HSET', meta, 'failed_node', t.node or '')
elseif outstanding == 0 then
  status = 'succeeded'
elseif t.pauses or t.resumes then
  local late = '\0n:late:' .. t.node
  local change = t.pauses and redis.call('HSETNX', joins, late, 1) or 0 - redis.call('HDEL', joins, late)
  status = redis.call('HINCRBY', joins, '\0n:late', change) > 0 and 'waiting' or 'running'
  redis.call('HSET', meta, 'status', status)
  if t.pauses then
    record('event', 'run_waiting', 'node', t.node)
    redis.call('XADD', KEYS[9], '*', 'event', 'run_waiting', 'node', t.node)
    redis.call('EXPIRE', KEYS[9], run_ttl)
  end
end
if status ~= 'running' and status ~= 'waiting' then
  local reason = t.ends and t.reason or ''
  redis.call('HSET', meta, 'status', status, 'reason', reason, 'finished', now)
  redis.call('DEL', outbox, watch) -- a retry needs the joins
  record('event', 'run_' .. status, 'reason', reason)
  redis.call('XADD', KEYS[9], '*', 'event', 'run_' .. status, 'reason', reason)
  for _, key in ipairs(KEYS) do
    redis.call('EXPIRE', key, result_ttl)
  end
  reply[#reply + 1] = redis.call('SCARD', KEYS[14])
else
  for _, key in ipairs({ meta, nodes, joins, outbox, events, watch }) do
    redis.call('EXPIRE', key, run_ttl)
  end
end
reply[2] = status
reply[3] = tonumber(redis.call('HGET', meta, 'ended') or 0)
return reply
