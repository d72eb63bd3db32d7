-- Settle claims whose attempt failed: the jobs become due again after a delay, and keep their ordering keys meanwhile.
--
-- KEYS[1]  queue
-- ARGV     of each claim: id, token, delay_ms, counts
--
-- Returns one number per claim: 1 settled; 0 not held any more, nothing was changed.
-- Safe to repeat: the second time the token is gone and nothing is changed.

local now = now_ms()
local answers = {}
for n, is_held in ipairs(held(1, 4)) do
  local id, delay_ms = ARGV[4 * n - 3], tonumber(ARGV[4 * n - 1])
  if is_held then
    redis.call('DEL', lease_key(id))
    redis.call('ZADD', queue, as_score(now + delay_ms), id)
    count(ARGV[4 * n])
    answers[n] = 1
  else
    answers[n] = 0
  end
end
write_counts()
return answers
