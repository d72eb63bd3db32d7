-- Unpark the next job of each ordering key whose holder has left the queue: a client removed it by hand.
--
-- KEYS[1]  queue
-- ARGV[1]  cursor of HSCAN
--
-- Returns the next cursor ('0' at the end) and how many keys were freed.
-- Safe to repeat.

local answer = redis.call('HSCAN', holders, ARGV[1], 'COUNT', 200)
local freed = 0
for i = 1, #answer[2], 2 do
  local key, holder = answer[2][i], answer[2][i + 1]
  if not redis.call('ZSCORE', queue, holder) then
    unpark_next(queue, key)
    freed = freed + 1
  end
end
return {answer[1], freed}
