-- Delete dead letters and their payloads, for good.
--
-- KEYS[1]  queue
-- ARGV[1]  until_ms  only letters of jobs that died at this time of Redis's clock, or before; '' for any
-- ARGV[2…] ids
--
-- Returns for each id: 1 deleted; 0 no such dead letter, or one of a later death, which was left alone.
-- Safe to repeat: the second time there is no such letter.

local dead, letters = queue .. ':dead', queue .. ':dead-letters'
local until_ms = tonumber(ARGV[1]) or math.huge
redis.call('HLEN', letters) -- fails here, before the first write, should the key be of another type

local answers = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local died_ms = redis.call('ZSCORE', dead, id)
  if died_ms and tonumber(died_ms) <= until_ms then
    redis.call('ZREM', dead, id)
    redis.call('HDEL', letters, id)
    redis.call('UNLINK', 'arq:dead:' .. id) -- of any size: the memory is given back beside
    answers[i - 1] = 1
  else
    answers[i - 1] = 0
  end
end
return answers
