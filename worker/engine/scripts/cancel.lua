-- Cancel a job: one that waits at once, one that runs as soon as its worker hears of it.
--
-- KEYS[1]  queue
-- ARGV[1]  id
-- ARGV[2]  result     what is stored for a job that waits
-- ARGV[3]  result_ms  how long it is kept
-- ARGV[4]  control    channel that workers listen on
--
-- Returns 1 cancelled; 2 asked of the worker that runs it; 0 not in the queue.
-- Safe to repeat.

local id, result, result_ms, control = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if not redis.call('ZSCORE', queue, id) then return 0 end
if redis.call('EXISTS', lease_key(id)) == 1 then
  redis.call('ZADD', 'arq:abort', string.format('%.0f', now_ms()), id)
  redis.call('PUBLISH', control, id)
  return 2
end
local key = ordering_key(id)
if key then redis.call('ZREM', parked_key(key), id) end
redis.call('SET', result_key(id), result, 'PX', result_ms)
redis.call('DEL', job_key(id))
leave(id)
return 1
