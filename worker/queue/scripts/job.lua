-- What the scripts of the engine share: the names of keys, the order per key, leaving the queue.
-- It stands before each of them; KEYS[1] is always the queue.

local queue = KEYS[1]
local clock = queue .. ':clock'     -- hash, see clock.lua
local holders = queue .. ':holders' -- hash: ordering key -> the id of the job that holds it
local PARKED_MS = '1e15'            -- a score out of reach of every clock

local function job_key(id) return 'arq:job:' .. id end
local function result_key(id) return 'arq:result:' .. id end
local function lease_key(id) return 'arq:in-progress:' .. id end
local function tries_key(id) return 'arq:retry:' .. id end
local function parked_key(key) return queue .. ':parked:' .. key end -- sorted set: job id -> its own score

local function now_ms() return now_us(clock) / 1000 end

-- Lua by itself prints 14 digits of a number, which would round microseconds away.
local function as_score(ms) return string.format('%.3f', ms) end

-- The ordering key that an id carries, or nil.
local function ordering_key(id)
  local at = string.find(id, '@', 1, true)
  if at and at < #id then return string.sub(id, at + 1) end
end

-- Whether this claim of the job still holds. A worker that lost its lease must not touch what another has claimed.
local function holds(id, token) return redis.pcall('GET', lease_key(id)) == token end

-- The same of all the claims that a call is about: ids stand in ARGV from a place on, tokens behind them, and the next
-- claim so many places further. One look for all: what a command costs is the call.
local function held(from, step)
  local leases = {}
  for i = from, #ARGV, step do leases[#leases + 1] = lease_key(ARGV[i]) end
  if #leases == 0 then return {} end
  local tokens = redis.call('MGET', unpack(leases)) -- false for a key of another type, too
  for n = 1, #leases do tokens[n] = tokens[n] == ARGV[from + (n - 1) * step + 1] end
  return tokens
end

-- Whether somebody wants the job cancelled. A key of another type, a stranger's, says nothing.
local function to_be_cancelled(id)
  local asked = redis.pcall('ZSCORE', 'arq:abort', id)
  return asked and type(asked) ~= 'table'
end

-- Let the next job of an ordering key come.
local function pass_on(key) unpark_next(queue, key) end

-- Undo a claim: the job is due again at the place it had, and the try is not counted.
local function give_back(id, score)
  redis.call('DEL', lease_key(id))
  redis.call('ZADD', queue, score, id)
  -- Nought at the least, and not gone: whether a job was ever claimed matters when it is to be cancelled.
  if redis.call('DECR', tries_key(id)) < 0 then redis.call('SET', tries_key(id), '0') end
end

-- Take jobs that ended out of the queue with all that is theirs, and let the next of their keys come.
local function leave(ids)
  if #ids == 0 then return end
  local theirs = {}
  for _, id in ipairs(ids) do
    local n = #theirs
    theirs[n + 1], theirs[n + 2], theirs[n + 3] = job_key(id), lease_key(id), tries_key(id)
  end
  redis.call('ZREM', queue, unpack(ids))
  redis.call('DEL', unpack(theirs))
  redis.pcall('ZREM', 'arq:abort', unpack(ids))
  for _, id in ipairs(ids) do
    local key = ordering_key(id)
    if key and redis.call('HGET', holders, key) == id then pass_on(key) end
  end
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

-- What settlements count for, added up and written once a call. The form of a tally, and the fields of the hash, are
-- told in worker/queue/counters.py. Counts are no reason to fail: what a stranger has put there stays as it is.
local counted = {}
local function add(field, n) counted[field] = (counted[field] or 0) + n end
local function count(tally)
  local tries, label, wait_us, run_us, more = string.match(tally, '^((%S+) %d+ %d+) (%d+) (%d+)(.*)$')
  if not tries then return end -- of a job that was not tried
  add(tries, 1)
  add(label .. ' wait_us', wait_us)
  add(label .. ' run_us', run_us)
  if more ~= '' then
    for field, n in string.gmatch(more, '(%S+) (%d+)') do add(field, n) end
  end
end
local function count_all()
  for field, n in pairs(counted) do redis.pcall('HINCRBY', counters_key(queue), field, string.format('%.0f', n)) end
end
