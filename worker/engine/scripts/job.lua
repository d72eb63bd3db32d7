-- What the scripts of the engine share: the names of keys, the order per key, leaving the queue.
-- It stands before each of them; KEYS[1] is always the queue.

local queue = KEYS[1]
local holders = queue .. ':holders' -- hash: ordering key -> the id of the job that holds it
local PARKED_MS = '1e15'            -- a score out of reach of every clock

local function job_key(id) return 'arq:job:' .. id end
local function result_key(id) return 'arq:result:' .. id end
local function lease_key(id) return 'arq:in-progress:' .. id end
local function tries_key(id) return 'arq:retry:' .. id end
local function parked_key(key) return queue .. ':parked:' .. key end -- sorted set: job id -> its own score

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + time[2] / 1000
end

-- Lua by itself prints 14 digits of a number, which would round microseconds away.
local function as_score(ms) return string.format('%.3f', ms) end

-- The ordering key that an id carries, or nil.
local function ordering_key(id) return string.match(id, '^[^@]*@(.+)$') end

-- Whether this claim of the job still holds. A worker that lost its lease must not touch what another has claimed.
local function holds(id, token) return redis.pcall('GET', lease_key(id)) == token end

-- Whether somebody wants the job cancelled. A key of another type, a stranger's, says nothing.
local function to_be_cancelled(id)
  local asked = redis.pcall('ZSCORE', 'arq:abort', id)
  return asked and type(asked) ~= 'table'
end

-- Let the next job of an ordering key come, at its own place in the queue. Repeating it changes nothing.
local function pass_on(key)
  local next_id, score = unpack(redis.call('ZPOPMIN', parked_key(key)))
  while next_id do
    if redis.call('ZSCORE', queue, next_id) then
      redis.call('ZADD', queue, score, next_id)
      redis.call('HSET', holders, key, next_id)
      return
    end
    next_id, score = unpack(redis.call('ZPOPMIN', parked_key(key))) -- it was taken out of the queue by hand
  end
  redis.call('HDEL', holders, key)
end

-- Take a job that ended out of the queue, and let the next of its key come. The payload is the caller's to dispose of.
local function leave(id)
  redis.call('ZREM', queue, id)
  redis.call('DEL', lease_key(id), tries_key(id))
  redis.pcall('ZREM', 'arq:abort', id)
  local key = ordering_key(id)
  if key and redis.call('HGET', holders, key) == id then pass_on(key) end
end

-- Tell producers which of their jobs ended: one message a channel, ids separated by spaces.
local ended = {}
local function tell(channel, id)
  if channel ~= '' then
    ended[channel] = ended[channel] and ended[channel] .. ' ' .. id or id
  end
end
local function tell_all()
  for channel, ids in pairs(ended) do redis.call('PUBLISH', channel, ids) end
end
