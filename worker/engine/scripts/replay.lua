-- Put dead letters back into the queue under their own ids, due at once, with all their tries before them.
--
-- KEYS[1]  queue
-- ARGV[1]  wake  channel to publish on
-- ARGV[2…] ids
--
-- Returns for each id: 1 replayed; 0 no such dead letter, or one without a payload to replay.
-- Safe to repeat, also twice at once: the first takes the letter, the second finds none.

local dead, letters = queue .. ':dead', queue .. ':dead-letters'
local clock = queue .. ':clock'
local answers, replayed = {}, false
local last_us = tonumber(redis.call('GET', clock) or '0') or 0
for i = 2, #ARGV do
  local id = ARGV[i]
  if redis.call('ZSCORE', dead, id) and redis.call('EXISTS', 'arq:dead:' .. id) == 1
    and redis.call('EXISTS', job_key(id)) == 0 then
    -- A new place in the order: what was accepted behind it has gone on.
    last_us = math.max(math.floor(now_ms() * 1000), last_us + 1)
    redis.call('RENAME', 'arq:dead:' .. id, job_key(id))
    redis.call('ZADD', queue, as_score(last_us / 1000), id)
    redis.call('ZREM', dead, id)
    redis.call('HDEL', letters, id)
    redis.call('DEL', tries_key(id), result_key(id))
    answers[#answers + 1] = 1
    replayed = true
  else
    answers[#answers + 1] = 0
  end
end
if replayed then
  redis.call('SET', clock, string.format('%.0f', last_us))
  redis.call('PUBLISH', ARGV[1], '1')
end
return answers
