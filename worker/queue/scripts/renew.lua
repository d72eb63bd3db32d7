-- Renew leases.
--
-- KEYS[1]  queue
-- ARGV[1]  lease_ms
-- ARGV[2…] of each claim: id, token
--
-- Returns one number per claim: 1 renewed; 0 lost: the lease expired; another worker may have claimed the job since;
-- 2 renewed, and the job is to be cancelled.
-- Safe to repeat: the lease ends later, nothing else changes.

local lease_ms = tonumber(ARGV[1])
local until_score = as_score(now_ms() + lease_ms)
local answers, lost = {}, 0
for n, is_held in ipairs(held(2, 2)) do
  local id = ARGV[2 * n]
  if is_held then
    redis.call('PEXPIRE', lease_key(id), ARGV[1])
    redis.call('ZADD', queue, 'XX', until_score, id)
    answers[n] = is_to_cancel(id) and 2 or 1
  else
    answers[n] = 0
    lost = lost + 1
  end
end
if lost > 0 then add('leases_lost', lost) end
write_counts()
return answers
