-- Cancel a job: at once if no worker has ever claimed it; else the worker that has it, or the next, is asked to.
--
-- A job that was claimed may have had its effect, even if it is back in the queue: the answer to its COMMIT may have been
-- lost. So may one that has a result, put into the queue again by hand. The ledger knows, and only workers ask it. (A job
-- accepted again under its old id after its result was gone looks like a new one: it is cancelled at once, and whoever
-- asks is told so, although the ledger holds the outcome of before. A job cancelled at once leaves nothing in the ledger.)
--
-- KEYS[1]  queue    sorted set: job id -> due time, ms; 1e15: parked behind the head of its ordering key
-- KEYS[2]  holders  hash: ordering key -> the id of the job that holds it
-- KEYS[3]  result   string: the outcome, when the job has ended
-- KEYS[4]  job      string: the payload
-- KEYS[5]  lease    string: there while a worker has the job
-- KEYS[6]  tries    string: there since the job was first claimed
-- KEYS[7]  parked   sorted set: the jobs parked under the ordering key; the queue itself for a job without one
-- ARGV[1]  id
-- ARGV[2]  ordering_key  '' for none
-- ARGV[3]  outcome       the result to be stored
-- ARGV[4]  result_ms     how long it is kept
-- ARGV[5]  control       channel: workers hear of jobs to be cancelled
-- ARGV[6]  wake          channel: workers hear of jobs that are due
-- ARGV[7]  channel       where the job's producer hears of its jobs that ended; '' for nowhere
--
-- Returns two values: 0 not in the queue, and its result (or false); 1 cancelled; 2 the worker that runs it was asked;
-- 3 the worker that claims it next will find that it is to be cancelled. It is due at once then, unless parked.
-- Safe to repeat: what was cancelled is not in the queue any more and has its result; to ask twice is to ask once.

local queue, holders, result, job, lease, tries, parked = unpack(KEYS)
local id, key, outcome, result_ms, control, wake, channel = unpack(ARGV)
local PARKED_MS = 1e15

local score = redis.call('ZSCORE', queue, id)
if not score then
  local known = redis.pcall('GET', result)
  return {0, type(known) == 'string' and known}
end
redis.call('HLEN', holders)       -- these fail here, before the first write,
redis.call('ZCARD', parked)       -- should the keys be of another type
redis.call('ZCARD', 'arq:abort')

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + time[2] / 1000

local running = redis.call('EXISTS', lease) == 1
if running or redis.call('EXISTS', tries, result) > 0 then
  redis.call('ZADD', 'arq:abort', string.format('%.0f', now_ms), id)
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

redis.call('SET', result, outcome, 'PX', result_ms)
redis.call('DEL', job)
redis.call('ZREM', queue, id)
redis.call('ZREM', 'arq:abort', id)
if key ~= '' then
  redis.call('ZREM', parked, id)
  if redis.call('HGET', holders, key) == id then let_next_come(queue, holders, parked, key) end
  redis.call('PUBLISH', wake, '1') -- the next of its key may be due
end
if channel ~= '' then redis.call('PUBLISH', channel, id) end
return {1, false}
