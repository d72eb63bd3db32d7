-- Settle claims whose try failed: the jobs come back later. They keep their ordering keys meanwhile.
--
-- KEYS[1]  queue
-- ARGV     id, token, delay_ms of each claim
--
-- Returns for each claim: 1 settled; 0 not held any more, nothing was changed.
-- Safe to repeat: the second time the token is gone and nothing is changed.

local now = now_ms()
local answers = {}
for i = 1, #ARGV, 3 do
  local id, token, delay_ms = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  if holds(id, token) then
    redis.call('DEL', lease_key(id))
    redis.call('ZADD', queue, as_score(now + delay_ms), id)
    answers[#answers + 1] = 1
  else
    answers[#answers + 1] = 0
  end
end
return answers
