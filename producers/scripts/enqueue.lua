-- Accept jobs into a queue, each at most once, in one order given by Redis.
--
-- KEYS[1]  queue  sorted set: job id -> due time, ms
-- KEYS[2]  clock  hash, see clock.lua: its `now` is the queue clock's last noted time; scores are always greater
-- ARGV[1]  wake            channel: a job became due
-- ARGV[2]  max_queued      refuse jobs while the queue holds this many; 0: no bound
-- ARGV[3]  idempotency_ms  how long an idempotency key is remembered
-- ARGV[4]  jobs            their number: at most a few thousand, as Lua passes no more than 8000 values to a command
-- then two values per job:
--   id, payload
-- then five values for each job that is deferred or has an idempotency key to remember:
--   number       the position of the job, from 1
--   delay_ms     due this long after Redis's now; 0: not delayed
--   due_ms       due at this time of the Unix clock; 0: none was given
--   idempotency  key of a string with an expiry: the digest; '' for none
--   digest       the content that the idempotency key stands for
--
-- Returns one number per job: 1 accepted; 0 known already (queued, running or ended); -1 conflict; -2 queue full.
--
-- Safe to repeat: a known job is left unchanged. It is all or nothing: every command that can fail for the type of a
-- key comes before the first write; if Redis refuses writes, the script fails at its first write, so nothing is half
-- done.

local queue, clock = KEYS[1], KEYS[2]
local wake, max_queued, idempotency_ms, jobs = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])

local now = now_us(clock)
local last_us = now
local queued = redis.call('ZCARD', queue)

local names = {} -- two per job: the keys of its payload and of its result
for i = 1, jobs do
  local id = ARGV[3 + 2 * i]
  names[2 * i - 1], names[2 * i] = job_key(id), result_key(id)
end
-- Known jobs are rare, so one EXISTS for all usually suffices: most of a command's cost is the call.
local some_known = jobs > 0 and redis.call('EXISTS', unpack(names)) > 0

local options = {} -- job number -> where its five values begin
for at = 5 + 2 * jobs, #ARGV, 5 do options[tonumber(ARGV[at])] = at end

-- The values to write, in pairs (score and id, key and payload), collected for one command each.
local scores, payloads, n = {}, {}, 0
local answers, accepted, due_now = {}, {}, false
local format = string.format
for i = 1, jobs do
  local id, job = ARGV[3 + 2 * i], names[2 * i - 1]
  local delay_ms, score_ms, idempotency, digest = 0, 0, '', ''
  local known = false
  if options[i] then
    delay_ms, score_ms, idempotency, digest = unpack(ARGV, options[i] + 1, options[i] + 4)
    delay_ms, score_ms = tonumber(delay_ms), tonumber(score_ms)
    known = idempotency ~= '' and redis.pcall('GET', idempotency)
  end

  if known and known ~= digest then
    answers[i] = -1 -- other content, or a key of another type
  elseif accepted[id] or some_known and redis.call('EXISTS', job, names[2 * i]) > 0 then
    answers[i] = 0
  elseif max_queued > 0 and queued >= max_queued then
    answers[i] = -2
  else
    if delay_ms > 0 then
      score_ms = now / 1000 + delay_ms
    end
    -- A past time counts as now: otherwise the job would overtake jobs that were accepted before it.
    if score_ms * 1000 <= now then
      -- Strictly increasing: two jobs never tie.
      last_us = last_us + 1
      score_ms = last_us / 1000
      due_now = true
    end
    -- Lua itself prints 14 digits of a number, which would round microseconds away.
    scores[n + 1], scores[n + 2] = format('%.3f', score_ms), id
    payloads[n + 1], payloads[n + 2] = job, ARGV[4 + 2 * i]
    n = n + 2
    accepted[id] = true
    queued = queued + 1
    answers[i] = 1
  end
  if idempotency ~= '' and answers[i] >= 0 then
    -- Not collected: another job of this call may have the same key.
    redis.call('SET', idempotency, digest, 'PX', idempotency_ms)
  end
end

if n > 0 then
  redis.call('ZADD', queue, unpack(scores))
  redis.call('MSET', unpack(payloads))
end
if due_now then
  note_clock(clock, last_us)
  redis.call('PUBLISH', wake, '1')
end
return answers
