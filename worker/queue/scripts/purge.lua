-- Delete dead letters and their payloads for good.
--
-- KEYS[1]  queue
-- ARGV[1]  until_ms  only letters of jobs that died at this time of Redis's clock or before; '' for any
-- ARGV[2…] ids
--
-- Returns one number per id: 1 deleted; 0 no such dead letter, or one of a later death, which was left unchanged.
-- Safe to repeat: the second time there is no such letter.

local dead, letters = dead_key(queue), dead_letters_key(queue)
local until_ms = tonumber(ARGV[1]) or math.huge
redis.call('HLEN', letters) -- for a key of another type this fails here, before the first write

local answers = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local died_ms = redis.call('ZSCORE', dead, id)
  if died_ms and tonumber(died_ms) <= until_ms then
    redis.call('ZREM', dead, id)
    redis.call('HDEL', letters, id)
    redis.call('UNLINK', dead_payload_key(id)) -- it may be large: Redis frees the memory in the background
    answers[i - 1] = 1
  else
    answers[i - 1] = 0
  end
end
return answers
