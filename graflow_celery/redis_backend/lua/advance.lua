-- Takes steps of a run, one after the other: leave to run an attempt, or a transition. Each is carried out, or refused as
-- stale, by itself. What they read is read once, and what they change is written once, at the end.
--
-- The twin of RunState.begin and RunState.apply in core/state.py, called in this order.
--
-- KEYS  1 meta  2 nodes  3 joins  4 outbox  5 events  6 results  7 errors  8 channel  9 end  10 inputs  11 feedback
--       12 checkpoints  13 watch  14 blobs
-- ARGV  1 dispatch grace, ms   2 run ttl, s   3 result ttl, s
--       4 ms after which the monitor is to look at what was queued or begun and has not ended
--       5 '1' if events are written   6 who begins attempts
--       7 the steps as JSON, a list of
--         {begin: node, attempt, scopes, graph: of added tasks, input: true if it may have one,
--          queued: true if it must have a record by now, ack: the command that this answers,
--          renews: true if leave was given before and is only to be confirmed,
--          returns: true if leave was given before and is not needed: the attempt is queued again}, or of
--         {event, node, attempt, scopes, graph, holder, becomes, next, retries, losses, mirror, consumes,
--          declares, jumps, acks, pauses, resumes, ends, reason, worker, duration (ms; if it is missing: since it runs),
--          items: of a mapped task, keep: the name of the result or error,
--          reported: somebody else says so than the process that ran the attempt,
--          value, error, given: where in ARGV they are: of the result, of the error, of the next attempt's input,
--          asked: where a feedback record's id is, and after it the record
--          arrivals  [[key, needs, live, [emission, ...], [emission, ...]], ...]: what is queued if one of them was
--                    live, and if none was; one of them is left out where it cannot be
--          emissions [[command, weight, delay (ms), reenters, event, node, attempt, graph, members], ...]
--          draw      [cursor, limit, command before the number, command after it, key before, key after, graph,
--                    attempt]
--          first     the number of first attempts where it was decided: what dates from before a retry is stale
--          create    {field: value, ...}: makes the run, if it is not there yet; channel: where in ARGV keys and values
--                    of its channel begin}
--       8 as JSON, the names that are looked up in results, then in the channel, if leave is given
--       9... what steps refer to
-- Returns a list: for each step that asks for leave {1, retries, cycle, input or false, steps left or -1};
-- {2, max_steps}: the run has taken all of its steps; {0, status or ''}: the attempt is stale; for each transition
-- {1, status, ended nodes, command, command, ...} or {0, status or ''}, at the run's end with the number of blobs that
-- are to be let go of as its last item; then, if leave was given, the value of each name or false.

local grace, run_ttl, result_ttl, patience = tonumber(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4])
local steps, names = cjson.decode(ARGV[7]), cjson.decode(ARGV[8])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local FINAL = { succeeded = true, failed = true, skipped = true }
local RECORD = '^(%a+)|(%d+)|(.*)|(%d*)|(%d*)|(%d+)|(%d+)|(%d+)|([^|]*)$'
local STATE, ATTEMPT, WORKER, SINCE, LOSSES, RETRIES, CYCLE, GRAPH = 1, 2, 3, 4, 6, 7, 8, 9 -- 5: how long it took
local NONE = {}

-- Lua unpacks no more than some thousands at once; even, for pairs.
local MOST = 1000

local function call_all(command, key, arguments)
  for first = 1, #arguments, MOST do
    redis.call(command, key, unpack(arguments, first, math.min(first + MOST - 1, #arguments)))
  end
end

-- A hash of which each field is read once, and which is written once.
local function hash(key, wanted)
  local fields, distinct = {}, {}
  for _, name in ipairs(wanted) do
    if fields[name] == nil then
      fields[name] = false
      distinct[#distinct + 1] = name
    end
  end
  for first = 1, #distinct, MOST do
    local last = math.min(first + MOST - 1, #distinct)
    local found = redis.call('HMGET', key, unpack(distinct, first, last))
    for index = first, last do
      fields[distinct[index]] = found[index - first + 1]
    end
  end
  return { key = key, fields = fields, changed = {} }
end

local function get(from, name)
  local field = from.fields[name]
  if field == nil then
    field = redis.call('HGET', from.key, name)
    from.fields[name] = field
  end
  return field
end

local function put(into, name, field) -- false takes it away
  into.fields[name] = field
  into.changed[name] = true
end

local function add(into, name, amount)
  local sum = tonumber(get(into, name) or 0) + amount
  put(into, name, sum)
  return sum
end

local function write(into)
  local set, gone = {}, {}
  for name in pairs(into.changed) do
    if into.fields[name] == false then
      gone[#gone + 1] = name
    else
      local field = into.fields[name]
      set[#set + 1] = name
      set[#set + 1] = type(field) == 'table' and table.concat(field, '|') or field
    end
  end
  call_all('HDEL', into.key, gone)
  call_all('HSET', into.key, set)
  return #set > 0
end

-- A sorted set that is written once.
local function ranked(key)
  return { key = key, scores = {}, gone = {} }
end

local function enlist(into, member, score)
  into.scores[member], into.gone[member] = score, nil
end

local function strike(from, member)
  from.scores[member], from.gone[member] = nil, true
end

local function write_ranked(into)
  local added, gone = {}, {}
  for member, score in pairs(into.scores) do
    added[#added + 1] = score
    added[#added + 1] = member
  end
  for member in pairs(into.gone) do
    gone[#gone + 1] = member
  end
  call_all('ZREM', into.key, gone)
  if #added > 0 then
    call_all('ZADD', into.key, added)
    redis.call('EXPIRE', into.key, run_ttl) -- it may have been empty, and gone, before
  end
end

local wanted_nodes, wanted_joins = {}, {}
for _, step in ipairs(steps) do
  for _, name in ipairs(step.scopes or NONE) do
    wanted_nodes[#wanted_nodes + 1] = name
  end
  wanted_nodes[#wanted_nodes + 1] = step.begin or step.node
  for _, arrival in ipairs(step.arrivals or NONE) do
    wanted_joins[#wanted_joins + 1] = arrival[1]
    wanted_joins[#wanted_joins + 1] = arrival[1] .. '\0'
    if arrival[2] == 0 then
      wanted_joins[#wanted_joins + 1] = '\0n:' .. arrival[1]
    end
  end
end
local meta = hash(KEYS[1], { 'status', 'graph', 'max_steps', 'steps', 'outstanding', 'ended', 'succeeded', 'kept',
  'resumed_from' })
local nodes, joins = hash(KEYS[2], wanted_nodes), hash(KEYS[3], wanted_joins)
local results, errors, inputs, feedback = hash(KEYS[6], NONE), hash(KEYS[7], NONE), hash(KEYS[10], NONE), hash(KEYS[11], NONE)
local outbox, watch = ranked(KEYS[4]), ranked(KEYS[13])
local status, over, told_end = get(meta, 'status'), false, false

local function is_on()
  return status == 'running' or status == 'waiting'
end

-- When a key was given its ttl, by its number: a key that is new has none. They are all renewed now and then.
local until_, kept = string.match(get(meta, 'kept') or '', '^(%d+)|(.*)$')
local function is_new(number)
  local mark = number .. ','
  if string.find(',' .. kept, ',' .. mark, 1, true) then
    return false
  end
  kept = kept .. mark
  put(meta, 'kept', until_ .. '|' .. kept)
  return true
end

local function keep(number)
  if is_new(number) then
    redis.call('EXPIRE', KEYS[number], run_ttl)
  end
end

local function record(...)
  if ARGV[5] == '1' then
    redis.call('XADD', KEYS[5], 'MAXLEN', '~', 100000, '*', ...)
  end
end

-- "HASH~3", or "HASH~3.TAG" where a secret is set: since a retry of the run, attempts are counted from 3 on
local function first_attempt()
  return tonumber(string.match(get(meta, 'graph') or '', '^[^.]*~(%d+)') or 1)
end

-- A node's record, false if it has none. What is changed is put as a new one.
local function record_of(name)
  local found = get(nodes, name)
  if type(found) == 'string' then
    found = { string.match(found, RECORD) }
    for _, number in ipairs({ ATTEMPT, LOSSES, RETRIES, CYCLE }) do
      found[number] = tonumber(found[number])
    end
    nodes.fields[name] = found
  end
  return found
end

local function has_ended(name)
  local found = record_of(name)
  return found and FINAL[found[STATE]]
end

local function is_closed(scopes)
  for _, scope in ipairs(scopes or NONE) do
    if has_ended(scope) then
      return true
    end
  end
  return false
end

-- ------------------------------------------------------------------------------------------------ leave

local function begin(step)
  local node, attempt = step.begin, step.attempt
  if is_closed(step.scopes) then
    return { 0, status }
  end
  local present = record_of(node)
  local losses, retries, cycle, graph = 0, 0, 0, step.graph or ''
  if present then
    local is_it = present[ATTEMPT] == attempt
    if (step.renews or step.returns) and is_it and present[STATE] == 'running' and present[WORKER] == ARGV[6] then
      if step.returns then
        add(meta, 'steps', -1)
        put(nodes, node, { 'queued', attempt, '', now, 0, present[LOSSES], present[RETRIES], present[CYCLE], present[GRAPH] })
        record('event', 'node_queued', 'node', node, 'attempt', attempt)
        enlist(watch, node, now + patience)
      end
      return { 1, 0, 0, false, -1 }
    end
    if not is_it or present[STATE] ~= 'queued' or step.renews or step.returns then
      return { 0, status }
    end
    losses, retries, cycle, graph = present[LOSSES], present[RETRIES], present[CYCLE], present[GRAPH]
  elseif step.queued or step.renews or step.returns or attempt ~= first_attempt() then
    return { 0, status }
  end
  local most, taken = tonumber(get(meta, 'max_steps') or -1), tonumber(get(meta, 'steps') or 0)
  if most >= 0 and taken >= most then
    return { 2, most }
  end
  add(meta, 'steps', 1)
  local name = string.match(ARGV[6], '^[^#]*')
  if taken == 0 and not get(meta, 'begun') then
    put(meta, 'begun', now)
    record('event', 'run_started', 'worker', name)
  end
  put(nodes, node, { 'running', attempt, ARGV[6], now, 0, losses, retries, cycle, graph })
  record('event', 'node_started', 'node', node, 'attempt', attempt, 'worker', name)
  enlist(watch, node, now + patience)
  if step.ack then
    strike(outbox, step.ack)
  end
  return { 1, retries, cycle, step.input and get(inputs, node) or false, most < 0 and -1 or most - taken - 1 }
end

-- ------------------------------------------------------------------------------------------------ transitions

-- The fence, and the change of the node's own state. Returns false if the transition is stale.
local function change_node(t)
  local first = first_attempt()
  if (t.first or 1) ~= first or is_closed(t.scopes) then
    return false
  end
  local present = record_of(t.node)
  local started, losses, retries, cycle, graph, took = '', 0, 0, 0, t.graph or '', t.duration or 0
  if present then
    local state = present[STATE]
    if not t.duration and t.becomes and state == 'running' then
      took = math.max(0, now - present[SINCE])
    end
    if FINAL[state] or present[ATTEMPT] ~= t.attempt then
      return false
    end
    if t.holder and (state == 'waiting' or present[WORKER] ~= t.holder) then
      return false
    end
    started, losses, retries = present[SINCE], present[LOSSES], present[RETRIES]
    cycle, graph = present[CYCLE], present[GRAPH]
  elseif (t.attempt ~= 0 and t.attempt ~= first) or (t.holder and t.holder ~= '') then
    return false
  end
  if t.becomes then
    local becomes = { t.becomes, t.next or t.attempt, t.becomes ~= 'queued' and t.worker or '', started, took,
      losses + (t.losses or 0), retries + (t.retries or 0), cycle, graph }
    put(nodes, t.node, becomes)
    if t.mirror then
      put(nodes, t.mirror, becomes)
    end
    if t.becomes ~= 'queued' then
      strike(watch, t.node)
    end
    if FINAL[t.becomes] then
      add(meta, t.becomes, 1)
      add(meta, 'ended', 1)
      if string.sub(t.event, 1, 6) == 'group_' then
        add(meta, 'groups_' .. t.becomes, 1)
      end
    end
    if t.becomes == 'succeeded' then
      put(meta, 'last_node', t.node)
    end
  end
  if t.error and t.becomes then
    put(errors, t.keep, ARGV[t.error])
    put(results, t.keep, false)
  elseif t.value then
    put(results, t.keep, ARGV[t.value])
    if t.attempt > 1 or t.keep ~= t.node or get(meta, 'resumed_from') then -- there may be one from before
      put(errors, t.keep, false)
    end
  end
  if t.given then
    put(inputs, t.node, ARGV[t.given])
  end
  if t.asked then
    put(feedback, ARGV[t.asked], ARGV[t.asked + 1])
  end
  local fields = { 'event', t.event, 'node', t.node, 'attempt', t.attempt }
  local function tell(name, value)
    fields[#fields + 1], fields[#fields + 2] = name, value
  end
  if t.worker then
    tell('worker', t.worker)
  end
  if took > 0 or t.worker then
    tell('duration', took)
  end
  if t.reason then
    tell('reason', t.reason)
  end
  if t.asked then
    tell('request', ARGV[t.asked])
  end
  if t.items then
    tell('count', t.items)
    local barrier = t.declares and t.declares[1]
    if barrier and not get(joins, '\0n:' .. barrier[1]) then
      add(meta, 'members', t.items)
    end
  end
  if t.reported then
    tell('reported', '1')
  end
  record(unpack(fields))
  return true
end

-- Counts arrivals at joins and barriers; returns all that is to be queued.
local function arrive(t)
  local emissions = {}
  for _, emission in ipairs(t.emissions or NONE) do
    emissions[#emissions + 1] = emission
  end
  for _, arrival in ipairs(t.arrivals or NONE) do
    local key, needs = arrival[1], arrival[2]
    local arrived, live = add(joins, key, 1), add(joins, key .. '\0', arrival[3])
    if needs == 0 then
      needs = tonumber(get(joins, '\0n:' .. key) or 0)
    end
    if arrived == needs then
      for _, emission in ipairs(live > 0 and arrival[4] or arrival[5] or NONE) do
        emissions[#emissions + 1] = emission
      end
    end
  end
  if t.draw then
    local cursor, limit = '\0n:' .. t.draw[1], '\0n:' .. t.draw[2]
    local number, most = tonumber(get(joins, cursor) or 0), tonumber(get(joins, limit) or 0)
    while number < most do
      if not has_ended(t.draw[5] .. number .. t.draw[6]) then
        break
      end
      number = number + 1 -- it was kept by a retry
    end
    if number < most then
      put(joins, cursor, number + 1)
      emissions[#emissions + 1] = { t.draw[3] .. number .. t.draw[4], 0, 0, '', 'node_queued',
        t.draw[5] .. number .. t.draw[6], t.draw[8], t.draw[7] }
    end
  end
  return emissions
end

-- How often the node of a pass ran before. One that is reached for the first time in a later pass did not.
local function cycle_of(reenters)
  local count = '\0n:cycle:' .. reenters
  if get(joins, count) then
    return add(joins, count, 1)
  end
  local first = record_of(reenters)
  return add(joins, count, first and first[STATE] ~= 'skipped' and 1 or 0)
end

local function queue(emission, ends)
  local command, _, delay, reenters, event, node, attempt, graph, members = unpack(emission)
  -- What is sent at once, or with a countdown, is due when it should have been; a timer is due at its time.
  enlist(outbox, command, now + delay + ((delay == 0 or event ~= '') and grace or 0))
  if event == '' then
    return
  end
  local losses, retries, cycle = 0, 0, reenters ~= '' and cycle_of(reenters) or 0
  if attempt > 1 then
    local present = record_of(node)
    if present then
      losses, retries, cycle = present[LOSSES], present[RETRIES], cycle > 0 and cycle or present[CYCLE]
    end
  end
  local state = event == 'group_opened' and 'running' or 'queued'
  put(nodes, node, { state, attempt, '', now + delay, 0, losses, retries, cycle, graph })
  enlist(watch, node, now + delay + patience)
  if ends then -- nothing that is queued now will start
    return
  end
  local fields = { 'event', event, 'node', node, 'attempt', attempt }
  for _, pair in ipairs({ { 'count', members }, { 'delay', delay }, { 'graph', graph } }) do
    if pair[2] and pair[2] ~= 0 and pair[2] ~= '' then
      fields[#fields + 1], fields[#fields + 2] = pair[1], pair[2]
    end
  end
  record(unpack(fields))
end

local function create(t)
  status = 'running'
  until_, kept = now + run_ttl * 50, ''
  for field, value in pairs(t.create) do
    put(meta, field, value)
  end
  for field, value in pairs({ status = status, started = now, outstanding = 0, kept = until_ .. '|' }) do
    put(meta, field, value)
  end
  for index = t.channel or #ARGV + 1, #ARGV, 2 do
    redis.call('HSET', KEYS[8], ARGV[index], ARGV[index + 1])
  end
  redis.call('EXPIRE', KEYS[8], run_ttl)
end

local function set_status(t, outstanding)
  if t.ends then
    status = t.ends
    put(meta, 'failed_node', t.node or '')
  elseif outstanding == 0 then
    status = 'succeeded'
  elseif t.pauses or t.resumes then
    local late, was = '\0n:late:' .. t.node, get(joins, '\0n:late:' .. t.node)
    put(joins, late, t.pauses and 1 or false)
    local change = t.pauses and (was and 0 or 1) or (was and -1 or 0)
    status = add(joins, '\0n:late', change) > 0 and 'waiting' or 'running'
    put(meta, 'status', status)
    if t.pauses then
      record('event', 'run_waiting', 'node', t.node)
      redis.call('XADD', KEYS[9], '*', 'event', 'run_waiting', 'node', t.node)
      told_end = true
    end
  end
  if not is_on() then
    local reason = t.ends and t.reason or ''
    put(meta, 'status', status)
    put(meta, 'reason', reason)
    put(meta, 'finished', now)
    record('event', 'run_' .. status, 'reason', reason)
    redis.call('XADD', KEYS[9], '*', 'event', 'run_' .. status, 'reason', reason)
    over = true
  end
end

local function apply(t)
  if t.create then
    if status then
      return { 0, status }
    end
    create(t)
  end
  if not t.node then
    record('event', t.event, 'reason', t.reason or '')
  elseif not change_node(t) then
    return { 0, status }
  end
  for _, command in ipairs(t.acks or NONE) do
    strike(outbox, command)
  end
  if t.jumps then
    local field = '\0jump:' .. t.jumps[1]
    local present = get(joins, field)
    local targets = present and cjson.decode(present) or {}
    for _, target in ipairs(t.jumps[2]) do
      targets[#targets + 1] = target
    end
    put(joins, field, cjson.encode(targets))
  end
  for _, declared in ipairs(t.declares or NONE) do
    if not get(joins, '\0n:' .. declared[1]) then
      put(joins, '\0n:' .. declared[1], declared[2])
    end
  end
  local emissions, reply = arrive(t), { 1, status, 0 }
  local weight = 0 - (t.consumes or 0)
  for _, emission in ipairs(emissions) do
    weight = weight + emission[2]
    reply[#reply + 1] = emission[1]
    queue(emission, t.ends)
  end
  set_status(t, weight == 0 and tonumber(get(meta, 'outstanding')) or add(meta, 'outstanding', weight))
  reply[2], reply[3] = status, tonumber(get(meta, 'ended') or 0)
  if over then
    reply[#reply + 1] = redis.call('SCARD', KEYS[14])
  end
  return reply
end

-- ------------------------------------------------------------------------------------------------ all steps

local replies, leave = {}, false
if not until_ then
  until_, kept = 0, ''
end
for index, step in ipairs(steps) do
  if not is_on() and not step.create then
    replies[index] = { 0, status or '' }
  elseif step.begin then
    replies[index] = begin(step)
    leave = leave or replies[index][1] == 1
  else
    replies[index] = apply(step)
  end
end
if not status then
  return replies
end
for number, into in pairs({ [2] = nodes, [3] = joins, [6] = results, [7] = errors, [10] = inputs, [11] = feedback }) do
  if write(into) and not over then
    keep(number)
  end
end
if over then
  redis.call('DEL', KEYS[4], KEYS[13]) -- a retry needs the joins
  write(meta)
  for _, key in ipairs(KEYS) do
    redis.call('EXPIRE', key, result_ttl)
  end
elseif is_on() then
  write_ranked(outbox)
  write_ranked(watch)
  if now > tonumber(until_) then
    until_, kept = now + run_ttl * 50, ''
    for number in ipairs(KEYS) do
      keep(number)
    end
    kept = ''
    put(meta, 'kept', until_ .. '|')
  end
  if next(meta.changed) then
    keep(5)
    if told_end then
      redis.call('EXPIRE', KEYS[9], run_ttl)
    end
    local made = is_new(1)
    write(meta)
    if made then
      redis.call('EXPIRE', KEYS[1], run_ttl)
    end
  end
end
if leave and #names > 0 then
  local found = redis.call('HMGET', KEYS[6], unpack(names))
  for index, name in ipairs(names) do
    replies[#replies + 1] = found[index] or live(KEYS[8], name)
  end
end
return replies
