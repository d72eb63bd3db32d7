-- Accept jobs into a queue, each at most once, in one order that Redis gives.
--
-- KEYS[1]  queue     sorted set: job id -> due time, ms
-- KEYS[2]  clock     hash, see clock.lua: here its `now` is the last score given out
-- then three for each job:
--   job              string: the payload
--   result           string: the outcome, when the job has ended already
--   idempotency      string with expiry: the digest, see below; the job's own key when the job has none
-- ARGV[1]  wake      channel to publish on when something is due at once
-- ARGV[2]  max_queued  refuse when the queue holds this many; 0: no bound
-- ARGV[3]  idempotency_ms  how long an idempotency key is remembered
-- then five for each job:
--   id, payload
--   delay_ms         due this long after Redis's now; 0: not delayed
--   due_ms           due at this time of the Unix clock; 0: no such time
--   digest           what the idempotency key stands for; '' for a job without one
--
-- Returns one number a job: 1 accepted, 0 known already (queued, running or ended), -1 conflict, -2 queue full.
--
-- Safe to repeat: a job that is known is left as it is. Nothing half-happens: every command that can fail for the
-- type of a key comes before the first write, and Redis refuses a script that may not write before its first write.

local queue, clock = KEYS[1], KEYS[2]
local wake, max_queued, idempotency_ms = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local jobs = (#KEYS - 2) / 3

local now = now_us(clock)
local last_us = now
local queued = redis.call('ZCARD', queue)

local answers, due_now = {}, false
for i = 1, jobs do
  local job, result, idempotency = KEYS[3 * i], KEYS[3 * i + 1], KEYS[3 * i + 2]
  local id, payload, delay_ms, due_ms, digest = unpack(ARGV, 5 * i - 1, 5 * i + 3)
  delay_ms, due_ms = tonumber(delay_ms), tonumber(due_ms)

  local known = digest ~= '' and redis.pcall('GET', idempotency)
  if known and known ~= digest then
    answers[i] = -1 -- another content, or a key of another type
  elseif redis.call('EXISTS', job, result) > 0 then
    answers[i] = 0
  elseif max_queued > 0 and queued >= max_queued then
    answers[i] = -2
  else
    local score_ms = due_ms
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
    redis.call('ZADD', queue, string.format('%.3f', score_ms), id)
    redis.call('SET', job, payload)
    queued = queued + 1
    answers[i] = 1
  end
  if digest ~= '' and answers[i] >= 0 then
    redis.call('SET', idempotency, digest, 'PX', idempotency_ms)
  end
end

if due_now then
  note_clock(clock, last_us)
  redis.call('PUBLISH', wake, '1')
end
return answers
