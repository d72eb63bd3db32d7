-- Cancel a job: at once if no worker has ever claimed it, otherwise by a request to the worker that holds it, or the
-- next one.
--
-- A job that was claimed may have had its effect, even if it is back in the queue: the answer to its COMMIT may have
-- been lost. So may a job that has a result and was put into the queue again by hand. The ledger knows, and only
-- workers read it. (A job accepted again under its old id after its result has expired looks like a new one: it is
-- cancelled at once, although the ledger holds its earlier outcome. A job cancelled at once leaves nothing there.)
--
-- KEYS[1]  queue
-- ARGV[1]  id
-- ARGV[2]  outcome    the result to store
-- ARGV[3]  result_ms  how long it is kept, unless a worker has written how long it keeps its results
-- ARGV[4]  control    channel: ids of running jobs to cancel
-- ARGV[5]  wake       channel: a job became due
-- ARGV[6]  channel    on which the job's producer is notified of its ended jobs; '' for none
--
-- Returns two values: 0 not in the queue, and its result (or false); 1 cancelled; 2 requested from the worker that runs
-- it; 3 requested from the worker that claims it next. In the last case it becomes due at once, unless it is parked.
-- Safe to repeat: a cancelled job has left the queue and has its result; a second request changes nothing.

local queue = KEYS[1]
local id, outcome, result_ms, control, wake, channel = unpack(ARGV)
local key = ordering_key(id)

local score = redis.call('ZSCORE', queue, id)
if not score then
  local result = redis.pcall('GET', result_key(id))
  return {0, type(result) == 'string' and result}
end
-- For a key of another type these fail here, before the first write.
redis.call('HLEN', holders_key(queue))
if key then redis.call('ZCARD', parked_key(queue, key)) end
redis.call('ZCARD', ABORT_KEY)

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + time[2] / 1000

local running = redis.call('EXISTS', lease_key(id)) == 1
if running or redis.call('EXISTS', attempts_key(id), result_key(id)) > 0 then
  redis.call('ZADD', ABORT_KEY, string.format('%.0f', now_ms), id)
  if running then
    redis.call('PUBLISH', control, id)
    return {2, false}
  end
  if tonumber(score) > now_ms and tonumber(score) < PARKED_MS then
    redis.call('ZADD', queue, string.format('%.3f', now_ms), id)
  end
  redis.call('PUBLISH', wake, '1')
  return {3, false}
end

-- Workers write a positive integer of at most 15 digits; ignore anything else.
local configured_ms = redis.pcall('HGET', config_key(queue), 'result_ms')
if type(configured_ms) == 'string' and #configured_ms <= 15 and string.match(configured_ms, '^[1-9]%d*$') then
  result_ms = configured_ms
end
redis.call('SET', result_key(id), outcome, 'PX', result_ms)
redis.call('DEL', job_key(id))
redis.call('ZREM', queue, id)
redis.call('ZREM', ABORT_KEY, id)
if key then
  redis.call('ZREM', parked_key(queue, key), id)
  if redis.call('HGET', holders_key(queue), key) == id then unpark_next(queue, key) end
  redis.call('PUBLISH', wake, '1') -- the next job of the key may be due
end
if channel ~= '' then redis.call('PUBLISH', channel, id) end
return {1, false}
