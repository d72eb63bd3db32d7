-- Accept jobs into a queue, each at most once, in one order that Redis gives.
--
-- KEYS[1]  queue     sorted set: job id -> due time, ms
-- KEYS[2]  clock     hash, see clock.lua: here its `now` is the last score given out
-- and of each job, by its id:
--   arq:job:<id>     string: the payload
--   arq:result:<id>  string: the outcome, when the job has ended already
-- ARGV[1]  wake      channel to publish on when something is due at once
-- ARGV[2]  max_queued  refuse when the queue holds this many; 0: no bound
-- ARGV[3]  idempotency_ms  how long an idempotency key is remembered
-- ARGV[4]  jobs      how many there are: at most some thousands, as Lua passes no more than 8000 values at once
-- then two for each job:
--   id, payload
-- then five for each job that is deferred or has an idempotency key to be remembered:
--   number           which job it is, from 1
--   delay_ms         due this long after Redis's now; 0: not delayed
--   due_ms           due at this time of the Unix clock; 0: no such time
--   idempotency      the key of a string with expiry: the digest; '' for none
--   digest           what the idempotency key stands for
--
-- Returns one number a job: 1 accepted, 0 known already (queued, running or ended), -1 conflict, -2 queue full.
--
-- Safe to repeat: a job that is known is left as it is. Nothing half-happens: every command that can fail for the
-- type of a key comes before the first write, and Redis refuses a script that may not write before its first write.

local queue, clock = KEYS[1], KEYS[2]
local wake, max_queued, idempotency_ms, jobs = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])

local now = now_us(clock)
local last_us = now
local queued = redis.call('ZCARD', queue)

local names = {} -- of each job: the key of its payload, the key of its outcome
for i = 1, jobs do
  local id = ARGV[3 + 2 * i]
  names[2 * i - 1], names[2 * i] = 'arq:job:' .. id, 'arq:result:' .. id
end
-- Hardly ever is one of them known, so one look at all usually is the only one. (What a command costs is the call.)
local some_known = jobs > 0 and redis.call('EXISTS', unpack(names)) > 0

local options = {} -- job number -> where its five values begin
for at = 5 + 2 * jobs, #ARGV, 5 do options[tonumber(ARGV[at])] = at end

-- What is to be written, in pairs: score and id; key and payload. One command for all of them, when all are decided.
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
    answers[i] = -1 -- another content, or a key of another type
  elseif accepted[id] or some_known and redis.call('EXISTS', job, names[2 * i]) > 0 then
    answers[i] = 0
  elseif max_queued > 0 and queued >= max_queued then
    answers[i] = -2
  else
    if delay_ms > 0 then
      score_ms = now / 1000 + delay_ms
    end
    -- A time that has passed already is now: else the job would overtake those that were accepted before it.
    if score_ms * 1000 <= now then
      -- Strictly increasing: two jobs never tie.
      last_us = last_us + 1
      score_ms = last_us / 1000
      due_now = true
    end
    -- Lua prints 14 digits of a number by itself, which would round microseconds away.
    scores[n + 1], scores[n + 2] = format('%.3f', score_ms), id
    payloads[n + 1], payloads[n + 2] = job, ARGV[4 + 2 * i]
    n = n + 2
    accepted[id] = true
    queued = queued + 1
    answers[i] = 1
  end
  if idempotency ~= '' and answers[i] >= 0 then
    -- At once: another job of this call may have the same key.
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
