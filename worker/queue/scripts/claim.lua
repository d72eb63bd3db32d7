-- Claim due jobs, in the order of their scores, under a lease.
--
-- KEYS[1]  queue
-- ARGV[1]  count       claim at most this many jobs
-- ARGV[2]  lease_ms    how long the claim lasts unless renewed
-- ARGV[3]  token       random, of this call alone
-- ARGV[4]  max_bytes   a larger payload is not fetched
-- ARGV[5]  claimer     the caller; it never has two calls in flight
-- ARGV[6]  unanswered  tokens of this claimer's calls whose answers were lost, separated by anything
--
-- Returns the milliseconds until the next job is due, the end of a lease included (-1: none is), then five values per
-- job:
--   id, the payload (or false), attempts begun (this one included), the score that it had,
--   state: 0 payload, 1 no payload, 2 too large, 3 a key of another type, 4 payload, and the job is to be cancelled,
--   5 payload, and Redis knows nothing else of the job: no earlier claim, no result
--
-- A claimed job's score is the end of its lease: no worker sees it until then, and it comes back by itself. A due job
-- whose ordering key is held by another job of the queue is parked: listed under the key, its score out of reach. Each
-- job is parked at most once, so a hot key does not slow the other jobs.
--
-- When an answer is lost, the claimer's next claim releases what it had claimed: a list holds the last claim of each
-- claimer. If there is no next claim, the jobs come back when their leases end.

local count, lease_ms, token, max_bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
count = math.min(count, 1000) -- Lua passes no more than 8000 values to a command
local bytes_left = 8 * 1024 * 1024 -- of payloads: an answer must fit the memory of Redis and the worker
local time, noted = now_us(clock)
local now = time / 1000
local until_score = as_score(now + lease_ms)
-- Parking is cheap, but one call must not block Redis for as long as the longest key is.
local reads_left = count + 2000

local last_claim = claim_key(queue, ARGV[5])

redis.call('HLEN', holders) -- for a key of another type this fails here, before the first write

-- Noted at least once a second, so that a step back is noticed.
if time > raw_us or time - noted > 1000000 then note_clock(clock, time) end

if ARGV[6] ~= '' then
  local last = redis.call('LRANGE', last_claim, 0, -1)
  if last[1] and string.find(ARGV[6], last[1], 1, true) then
    for i = 2, #last, 2 do
      if holds(last[i], last[1]) then release(last[i], last[i + 1]) end
    end
  end
end

local claimed, found = {-1}, 0
local cancelling = redis.pcall('ZCARD', ABORT_KEY)
cancelling = type(cancelling) == 'number' and cancelling > 0

local function park(id, score, key)
  local parked = parked_key(queue, key)
  if type(redis.pcall('ZADD', parked, score, id)) == 'table' then
    redis.call('DEL', parked) -- a foreign client's key of another type
    redis.call('ZADD', parked, score, id)
  end
  redis.call('ZADD', queue, PARKED_MS, id)
end

-- Whether the ordering key lets the job run now; if not, it is parked.
local function has_turn(id, score)
  local key = ordering_key(id)
  if not key then return true end
  local holder = redis.call('HGET', holders, key)
  if holder == id then return true end
  if holder and redis.call('ZSCORE', queue, holder) then
    park(id, score, key)
    return false
  end
  if holder and redis.pcall('ZCARD', parked_key(queue, key)) ~= 0 then
    -- A client removed the holder from the queue by hand; the jobs parked behind it come first.
    park(id, score, key)
    unpark_next(queue, key)
    return false
  end
  redis.call('HSET', holders, key, id)
  return true
end

local function fetch(id)
  local payload = redis.pcall('GETRANGE', job_key(id), 0, max_bytes)
  if type(payload) == 'table' then return false, 3 end
  bytes_left = bytes_left - #payload
  if #payload > max_bytes then return false, 2 end
  if payload == '' and redis.call('EXISTS', job_key(id)) == 0 then return false, 1 end
  return payload, 0
end

-- The number of the attempt that begins now, of a job that may have been claimed before.
local function count_attempt(id)
  local attempts = redis.pcall('INCR', attempts_key(id))
  if type(attempts) ~= 'table' then return attempts end
  redis.call('SET', attempts_key(id), '1') -- a foreign client's value
  return 1
end

local claim = {token}
while found < count and reads_left > 0 and bytes_left > 0 do
  local due = redis.call('ZRANGE', queue, '-inf', as_score(now), 'BYSCORE', 'LIMIT', 0,
    math.min(count - found, reads_left), 'WITHSCORES')
  if #due == 0 then break end
  reads_left = reads_left - #due / 2
  local turns, names = {}, {}
  for i = 1, #due, 2 do
    local id, score = due[i], due[i + 1]
    if has_turn(id, score) then
      local n = #turns
      turns[n + 1], turns[n + 2] = id, score
      names[n + 1], names[n + 2] = attempts_key(id), result_key(id)
    end
  end
  -- Known jobs are rare, so one EXISTS for all usually suffices: most of a command's cost is the call.
  local some_known = #names > 0 and redis.call('EXISTS', unpack(names)) > 0
  local moves, first_attempts = {}, {}
  for i = 1, #turns, 2 do
    local id, score, attempts, known = turns[i], turns[i + 1], 1, false
    if some_known then known = redis.call('EXISTS', names[i], names[i + 1]) > 0 end
    if known then
      attempts = count_attempt(id)
    else
      first_attempts[#first_attempts + 1], first_attempts[#first_attempts + 2] = names[i], '1'
    end
    redis.call('SET', lease_key(id), token, 'PX', ARGV[2])
    moves[i], moves[i + 1] = until_score, id
    claim[#claim + 1], claim[#claim + 2] = id, score
    local payload, state = fetch(id)
    if state == 0 and not known then state = 5 end
    if cancelling and payload and is_to_cancel(id) then state = 4 end
    local at = 5 * found + 2
    claimed[at], claimed[at + 1], claimed[at + 2] = id, payload, attempts
    claimed[at + 3], claimed[at + 4] = score, state
    found = found + 1
    if bytes_left <= 0 then break end -- the jobs not claimed yet keep their turns
  end
  if #moves > 0 then redis.call('ZADD', queue, unpack(moves)) end
  if #first_attempts > 0 then redis.call('MSET', unpack(first_attempts)) end
end
if found > 0 then
  redis.call('DEL', last_claim)
  redis.call('RPUSH', last_claim, unpack(claim))
  redis.call('PEXPIRE', last_claim, ARGV[2])
end

local following = redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')
if following[2] and tonumber(following[2]) < PARKED_MS then
  claimed[1] = math.max(0, math.ceil(tonumber(following[2]) - now))
end
return claimed
