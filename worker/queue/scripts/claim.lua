-- Claim due jobs, in the order of their scores, under a lease.
--
-- KEYS[1]  queue
-- ARGV[1]  count      at most so many jobs
-- ARGV[2]  lease_ms   how long the claim lasts unless renewed
-- ARGV[3]  token      random, of this call alone
-- ARGV[4]  max_bytes  a larger payload is not fetched
-- ARGV[5]  claimer    who claims: one at a time, each of its claims after the answer to the one before, or its loss
-- ARGV[6]  unanswered the tokens of its calls since the last that was answered; any separator
--
-- Returns the milliseconds until something in the queue is due again (-1: nothing is), then five values a job:
--   id, the payload (or false), tries begun (this one included), the score it had,
--   state: 0 payload, 1 no payload, 2 too large, 3 a key of another type, 4 payload, and the job is to be cancelled,
--   5 payload, and nothing is known of the job: it was not claimed before, and has no result
--
-- A claimed job's score is the end of its lease: it is out of sight of all workers and comes back by itself. A due job
-- whose ordering key is held by another job of the queue is parked: listed under the key, its score out of reach. Each
-- job is parked at most once, so a hot key costs the others nothing.
--
-- What an answer that was lost had claimed is given back by the claimer's next claim: a list holds what the last one
-- claimed. Should there be no next one, it comes back when its lease ends.

local count, lease_ms, token, max_bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
count = math.min(count, 1000) -- Lua hands no more than some thousand words to a command
local bytes_left = 8 * 1024 * 1024 -- of payloads: one answer must not fill anybody's memory
local time, noted = now_us(clock)
local now = time / 1000
local until_score = as_score(now + lease_ms)
-- Parking is cheap, but one call must not hold Redis up for as long as the longest key is.
local looks_left = count + 2000

local last_claim = queue .. ':claim:' .. ARGV[5] -- list: its token, then id and score of each job

redis.call('HLEN', holders) -- fails here, before the first write, should the key be of another type

-- Noted at least once a second, so that a step back is seen.
if time > raw_us or time - noted > 1000000 then note_clock(clock, time) end

if ARGV[6] ~= '' then
  local last = redis.call('LRANGE', last_claim, 0, -1)
  if last[1] and string.find(ARGV[6], last[1], 1, true) then
    for i = 2, #last, 2 do
      if holds(last[i], last[1]) then give_back(last[i], last[i + 1]) end
    end
  end
end

local claimed, found = {-1}, 0
local cancelling = redis.pcall('ZCARD', 'arq:abort')
cancelling = type(cancelling) == 'number' and cancelling > 0

local function park(id, score, key)
  if type(redis.pcall('ZADD', parked_key(key), score, id)) == 'table' then
    redis.call('DEL', parked_key(key)) -- of another type: nobody's but a stranger's
    redis.call('ZADD', parked_key(key), score, id)
  end
  redis.call('ZADD', queue, PARKED_MS, id)
end

-- Whether the job may run now as far as its ordering key goes; if not, it is parked.
local function has_turn(id, score)
  local key = ordering_key(id)
  if not key then return true end
  local holder = redis.call('HGET', holders, key)
  if holder == id then return true end
  if holder and redis.call('ZSCORE', queue, holder) then
    park(id, score, key)
    return false
  end
  if holder and redis.pcall('ZCARD', parked_key(key)) ~= 0 then
    -- The holder was taken out of the queue by hand; those who wait for it come first.
    park(id, score, key)
    pass_on(key)
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

-- The number of the try that begins now, of a job that may have been tried before.
local function count_try(id)
  local tries = redis.pcall('INCR', tries_key(id))
  if type(tries) ~= 'table' then return tries end
  redis.call('SET', tries_key(id), '1') -- not a number: a stranger's
  return 1
end

local claim = {token}
while found < count and looks_left > 0 and bytes_left > 0 do
  local due = redis.call('ZRANGE', queue, '-inf', as_score(now), 'BYSCORE', 'LIMIT', 0,
    math.min(count - found, looks_left), 'WITHSCORES')
  if #due == 0 then break end
  looks_left = looks_left - #due / 2
  local turns, names = {}, {}
  for i = 1, #due, 2 do
    local id, score = due[i], due[i + 1]
    if has_turn(id, score) then
      local n = #turns
      turns[n + 1], turns[n + 2] = id, score
      names[n + 1], names[n + 2] = tries_key(id), result_key(id)
    end
  end
  -- Hardly ever is one of them known, so one look at all usually is the only one. (What a command costs is the call.)
  local some_known = #names > 0 and redis.call('EXISTS', unpack(names)) > 0
  local moves, first_tries = {}, {}
  for i = 1, #turns, 2 do
    local id, score, tries, known = turns[i], turns[i + 1], 1, false
    if some_known then known = redis.call('EXISTS', names[i], names[i + 1]) > 0 end
    if known then
      tries = count_try(id)
    else
      first_tries[#first_tries + 1], first_tries[#first_tries + 2] = names[i], '1'
    end
    redis.call('SET', lease_key(id), token, 'PX', ARGV[2])
    moves[i], moves[i + 1] = until_score, id
    claim[#claim + 1], claim[#claim + 2] = id, score
    local payload, state = fetch(id)
    if state == 0 and not known then state = 5 end
    if cancelling and payload and to_be_cancelled(id) then state = 4 end
    local at = 5 * found + 2
    claimed[at], claimed[at + 1], claimed[at + 2], claimed[at + 3], claimed[at + 4] = id, payload, tries, score, state
    found = found + 1
    if bytes_left <= 0 then break end -- who had its turn and is not claimed keeps it
  end
  if #moves > 0 then redis.call('ZADD', queue, unpack(moves)) end
  if #first_tries > 0 then redis.call('MSET', unpack(first_tries)) end
end
if found > 0 then
  redis.call('DEL', last_claim)
  redis.call('RPUSH', last_claim, unpack(claim))
  redis.call('PEXPIRE', last_claim, ARGV[2])
end

local following = redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')
if following[2] and tonumber(following[2]) < tonumber(PARKED_MS) then
  claimed[1] = math.max(0, math.ceil(tonumber(following[2]) - now))
end
return claimed
