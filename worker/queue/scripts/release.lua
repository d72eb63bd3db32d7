-- Give claims back without counting a try: the jobs are due again at the places they had.
--
-- KEYS[1]  queue
-- ARGV[1]  wake  channel to publish on, so that another worker takes them at once; '' for none
-- ARGV[2…] id, token, score (the one it was claimed at), tally ('' when it was not tried) of each claim
--
-- Returns for each claim: 1 settled; 0 not held any more, nothing was changed.
-- Safe to repeat: the second time the token is gone and nothing is changed.

local answers, released = {}, false
for n, is_held in ipairs(held(2, 4)) do
  local id, score = ARGV[4 * n - 2], ARGV[4 * n]
  if is_held then
    give_back(id, score)
    count(ARGV[4 * n + 1])
    answers[n] = 1
    released = true
  else
    answers[n] = 0
  end
end
if released and ARGV[1] ~= '' then redis.call('PUBLISH', ARGV[1], '1') end
count_all()
return answers
