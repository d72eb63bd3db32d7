-- Release claims without counting an attempt: the jobs are due again at their own places.
--
-- KEYS[1]  queue
-- ARGV[1]  wake  channel to publish on, so that another worker claims them at once; '' for none
-- ARGV[2…] of each claim: id, token, score (at which it was claimed), counts ('' when it was not attempted)
--
-- Returns one number per claim: 1 released; 0 not held any more, nothing was changed.
-- Safe to repeat: the second time the token is gone and nothing is changed.

local answers, released = {}, false
for n, is_held in ipairs(held(2, 4)) do
  local id, score = ARGV[4 * n - 2], ARGV[4 * n]
  if is_held then
    release(id, score)
    count(ARGV[4 * n + 1])
    answers[n] = 1
    released = true
  else
    answers[n] = 0
  end
end
if released and ARGV[1] ~= '' then redis.call('PUBLISH', ARGV[1], '1') end
write_counts()
return answers
