-- Settle jobs that have their outcome: store the result, take them out of the queue, let the next of each key come.
--
-- KEYS[1]  queue
-- ARGV[1]  result_ms  how long a result is kept
-- ARGV[2…] id, token, result, channel (to tell the producer on; '' for none), tally of each claim
--
-- Returns for each claim: 1 settled; 0 not held any more, nothing was changed.
-- Safe to repeat: the second time the token is gone and nothing is changed.

local answers, left = {}, {}
for n, is_held in ipairs(held(2, 5)) do
  local id, _, result, channel, tally = unpack(ARGV, 5 * n - 3, 5 * n + 1)
  if is_held then
    redis.call('SET', result_key(id), result, 'PX', ARGV[1])
    left[#left + 1] = id
    tell(channel, id)
    count(tally)
    answers[n] = 1
  else
    answers[n] = 0
  end
end
leave(left)
tell_all()
count_all()
return answers
