-- Order per key, for the scripts that take a job out of the queue. It comes before them.

-- The ordering key that a job id carries, or nil.
local function ordering_key(id)
  local at = string.find(id, '@', 1, true)
  if at and at < #id then return string.sub(id, at + 1) end
end

-- Remove the first of the jobs parked under an ordering key; return its id and its own score, or nil.
-- The error for a key of another type, written by a foreign client, has neither.
local function pop_parked(parked)
  local first = redis.pcall('ZPOPMIN', parked)
  return first[1], first[2]
end

-- Put the next job of an ordering key back at its own place in the queue. Safe to repeat.
local function unpark_next(queue, key)
  local holders, parked = holders_key(queue), parked_key(queue, key)
  local next_id, score = pop_parked(parked)
  while next_id do
    if redis.call('ZSCORE', queue, next_id) then
      redis.call('ZADD', queue, score, next_id)
      redis.call('HSET', holders, key, next_id)
      return
    end
    next_id, score = pop_parked(parked) -- a client removed it from the queue by hand
  end
  redis.call('HDEL', holders, key)
end
