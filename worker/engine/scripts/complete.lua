-- Settle jobs that have their outcome: store the result, take them out of the queue, let the next of each key come.
--
-- KEYS[1]  queue
-- ARGV[1]  result_ms  how long a result is kept
-- ARGV[2…] id, token, result, channel (to tell the producer on; '' for none) of each claim
--
-- Returns for each claim: 1 settled; 0 not held any more, nothing was changed.
-- Safe to repeat: the second time the token is gone and nothing is changed.

if #ARGV < 2 then return {} end
local leases = {} -- one look at all of them: what a command costs is the call
for i = 2, #ARGV, 4 do leases[#leases + 1] = lease_key(ARGV[i]) end
local tokens = redis.call('MGET', unpack(leases)) -- false for a key of another type, too

local answers, left = {}, {}
for n, held in ipairs(tokens) do
  local id, token, result, channel = unpack(ARGV, 4 * n - 2, 4 * n + 1)
  if held == token then
    redis.call('SET', result_key(id), result, 'PX', ARGV[1])
    left[#left + 1] = id
    tell(channel, id)
    answers[n] = 1
  else
    answers[n] = 0
  end
end
leave(left)
tell_all()
return answers
