-- Settle jobs that have their outcome: store the result, remove the job, unpark the next one of its ordering key.
--
-- KEYS[1]  queue
-- ARGV[1]  result_ms  how long a result is kept
-- ARGV[2…] of each claim: id, token, result, channel (where its producer is notified; '' for none), counts
--
-- Returns one number per claim: 1 settled; 0 not held any more, nothing was changed.
-- Safe to repeat: the second time the token is gone and nothing is changed.

local answers, completed = {}, {}
for n, is_held in ipairs(held(2, 5)) do
  local id, _, result, channel, counts = unpack(ARGV, 5 * n - 3, 5 * n + 1)
  if is_held then
    redis.call('SET', result_key(id), result, 'PX', ARGV[1])
    completed[#completed + 1] = id
    notify(channel, id)
    count(counts)
    answers[n] = 1
  else
    answers[n] = 0
  end
end
remove_jobs(completed)
send_notifications()
write_counts()
return answers
