-- What the scripts of the queue share. It comes after clock.lua and order.lua, and before each of them.
-- KEYS[1] is always the queue. All other keys are named in producers/keys.py.

local queue = KEYS[1]
local clock = clock_key(queue)
local holders = holders_key(queue)

local function now_ms() return now_us(clock) / 1000 end

-- Lua itself prints 14 digits of a number, which would round microseconds away.
local function as_score(ms) return string.format('%.3f', ms) end

-- Whether this claim of the job still holds. A worker that lost its lease must not touch what another has claimed.
local function holds(id, token) return redis.pcall('GET', lease_key(id)) == token end

-- The same for all claims of a call, as a list of booleans. Ids begin at ARGV[from], `step` values apart, each followed
-- by its token. One MGET for all: most of a command's cost is the call.
local function held(from, step)
  local leases = {}
  for i = from, #ARGV, step do leases[#leases + 1] = lease_key(ARGV[i]) end
  if #leases == 0 then return {} end
  local tokens = redis.call('MGET', unpack(leases)) -- false for a key of another type, too
  for n = 1, #leases do tokens[n] = tokens[n] == ARGV[from + (n - 1) * step + 1] end
  return tokens
end

-- Whether the job is to be cancelled. A foreign client's key of another type counts as no.
local function is_to_cancel(id)
  local requested = redis.pcall('ZSCORE', ABORT_KEY, id)
  return requested and type(requested) ~= 'table'
end

-- Undo a claim: the job is due again at its own place, and the attempt does not count.
local function release(id, score)
  redis.call('DEL', lease_key(id))
  redis.call('ZADD', queue, score, id)
  -- At least 0, and not deleted: cancel.lua must know whether a job was ever claimed.
  if redis.call('DECR', attempts_key(id)) < 0 then redis.call('SET', attempts_key(id), '0') end
end

-- Remove ended jobs from the queue with all their keys, and unpark the next job of each ordering key that they held.
local function remove_jobs(ids)
  if #ids == 0 then return end
  local job_keys = {}
  for _, id in ipairs(ids) do
    local n = #job_keys
    job_keys[n + 1], job_keys[n + 2], job_keys[n + 3] = job_key(id), lease_key(id), attempts_key(id)
  end
  redis.call('ZREM', queue, unpack(ids))
  redis.call('DEL', unpack(job_keys))
  redis.pcall('ZREM', ABORT_KEY, unpack(ids))
  for _, id in ipairs(ids) do
    local key = ordering_key(id)
    if key and redis.call('HGET', holders, key) == id then unpark_next(queue, key) end
  end
end

-- Notify producers of their ended jobs: one message a channel, ids separated by spaces.
local ended = {}
local function notify(channel, id)
  if channel ~= '' then
    ended[channel] = ended[channel] and ended[channel] .. ' ' .. id or id
  end
end
local function send_notifications()
  for channel, ids in pairs(ended) do redis.call('PUBLISH', channel, ids) end
end

-- The counts of settlements, summed and written once a call. worker/queue/counters.py documents their text and the
-- fields of the hash. Counting never fails a settlement: a foreign client's value of another type stays unchanged.
local sums = {}
local function add(field, n) sums[field] = (sums[field] or 0) + n end
local function count(counts)
  local attempts, label, wait_us, run_us, more = string.match(counts, '^((%S+) %d+ %d+) (%d+) (%d+)(.*)$')
  if not attempts then return end -- the job was not attempted
  add(attempts, 1)
  add(label .. ' wait_us', wait_us)
  add(label .. ' run_us', run_us)
  if more ~= '' then
    for field, n in string.gmatch(more, '(%S+) (%d+)') do add(field, n) end
  end
end
local function write_counts()
  for field, n in pairs(sums) do redis.pcall('HINCRBY', counters_key(queue), field, string.format('%.0f', n)) end
end
