-- Put dead letters back into the queue under their own ids, due at once, with all their tries before them.
--
-- KEYS[1]  queue
-- ARGV[1]  wake  channel to publish on
-- ARGV[2…] ids
--
-- Returns for each id: 1 replayed; 0 no such dead letter; -1 it has no payload to replay; -2 a job of this id is in the
-- queue: it was accepted anew, and has the payload that counts. Where it is not 1 nothing was changed.
-- Safe to repeat, also twice at once: the first takes the letter, the second finds none.

local dead, letters = queue .. ':dead', queue .. ':dead-letters'
local last_us = now_us(clock)
redis.call('HLEN', letters)       -- these fail here, before the first write,
redis.call('ZCARD', 'arq:abort')  -- should the keys be of another type

local function answer(id)
  if not redis.call('ZSCORE', dead, id) then return 0 end
  if redis.call('EXISTS', 'arq:dead:' .. id) == 0 then return -1 end
  if redis.call('ZSCORE', queue, id) or redis.call('EXISTS', job_key(id)) == 1 then return -2 end
  return 1
end

local answers, replayed = {}, false
for i = 2, #ARGV do
  local id = ARGV[i]
  answers[i - 1] = answer(id)
  if answers[i - 1] == 1 then
    -- A new place in the order: what was accepted behind it has gone on.
    last_us = last_us + 1
    redis.call('RENAME', 'arq:dead:' .. id, job_key(id))
    redis.call('ZADD', queue, as_score(last_us / 1000), id)
    redis.call('ZREM', dead, id)
    redis.call('HDEL', letters, id)
    redis.call('DEL', tries_key(id), result_key(id))
    redis.call('ZREM', 'arq:abort', id) -- it was meant for the job that died
    replayed = true
  end
end
if replayed then
  note_clock(clock, last_us)
  redis.call('PUBLISH', ARGV[1], '1')
end
return answers
