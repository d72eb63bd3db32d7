-- Put dead letters back into the queue under their own ids, due at once, with all their attempts ahead of them.
--
-- KEYS[1]  queue
-- ARGV[1]  wake  channel to publish on
-- ARGV[2…] ids
--
-- Returns one number per id: 1 replayed; 0 no such dead letter; -1 it has no payload to replay; -2 a job of this id is
-- in the queue: it was accepted again, and its payload is the valid one. Unless it is 1, nothing was changed.
-- Safe to repeat, also concurrently: the first call takes the letter, the second finds none.

local dead, letters = dead_key(queue), dead_letters_key(queue)
local last_us = now_us(clock)
redis.call('HLEN', letters)   -- for a key of another type these fail here,
redis.call('ZCARD', ABORT_KEY) -- before the first write

local function answer(id)
  if not redis.call('ZSCORE', dead, id) then return 0 end
  if redis.call('EXISTS', dead_payload_key(id)) == 0 then return -1 end
  if redis.call('ZSCORE', queue, id) or redis.call('EXISTS', job_key(id)) == 1 then return -2 end
  return 1
end

local answers, replayed = {}, false
for i = 2, #ARGV do
  local id = ARGV[i]
  answers[i - 1] = answer(id)
  if answers[i - 1] == 1 then
    -- A new place in the order: the jobs that were accepted after it have run meanwhile.
    last_us = last_us + 1
    redis.call('RENAME', dead_payload_key(id), job_key(id))
    redis.call('ZADD', queue, as_score(last_us / 1000), id)
    redis.call('ZREM', dead, id)
    redis.call('HDEL', letters, id)
    redis.call('DEL', attempts_key(id), result_key(id))
    redis.call('ZREM', ABORT_KEY, id) -- the request was for the job that died
    replayed = true
  end
end
if replayed then
  note_clock(clock, last_us)
  redis.call('PUBLISH', ARGV[1], '1')
end
return answers
