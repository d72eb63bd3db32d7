-- The order per key, for the scripts that take a job out of the queue; it stands before them.

-- The first of the jobs parked under an ordering key, which is parked no more, and its score; nil for none.
-- A key of another type is a stranger's: its error holds neither.
local function unpark(parked)
  local first = redis.pcall('ZPOPMIN', parked)
  return first[1], first[2]
end

-- Let the next job of an ordering key come, at its own place in the queue. Repeating it changes nothing.
--   queue    sorted set: job id -> due time, ms
--   holders  hash: ordering key -> the id of the job that holds it
--   parked   sorted set: job id -> its own score
local function let_next_come(queue, holders, parked, key)
  local next_id, score = unpark(parked)
  while next_id do
    if redis.call('ZSCORE', queue, next_id) then
      redis.call('ZADD', queue, score, next_id)
      redis.call('HSET', holders, key, next_id)
      return
    end
    next_id, score = unpark(parked) -- it was taken out of the queue by hand
  end
  redis.call('HDEL', holders, key)
end
