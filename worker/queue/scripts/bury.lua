-- Settle dead jobs: keep each as a dead letter, store its result, unpark the next job of its ordering key.
--
-- KEYS[1]  queue
-- ARGV[1]  result_ms  how long a result is kept
-- ARGV[2…] of each claim: id, token, result, channel ('' for none), record (of the death, as JSON), counts
--
-- The payload is renamed, not copied: of whatever type and size it is, it is kept whole. The record goes into the hash
-- of dead letters, the time of death into their sorted set.
--
-- Returns one number per claim: 1 settled; 0 not held any more, nothing was changed.
-- Safe to repeat: the second time the token is gone and nothing is changed.

local dead, letters = dead_key(queue), dead_letters_key(queue)
local now = now_ms()

-- Move aside a foreign client's key of another type. It is kept whole, and would otherwise block every settlement.
local function move_foreign_key(key, kind)
  local found = redis.call('TYPE', key)
  found = type(found) == 'table' and found.ok or found
  if found ~= kind and found ~= 'none' then redis.call('RENAME', key, foreign_key(key)) end
end
move_foreign_key(dead, 'zset')
move_foreign_key(letters, 'hash')

local answers, buried = {}, {}
for n, is_held in ipairs(held(2, 6)) do
  local id, _, result, channel, record, counts = unpack(ARGV, 6 * n - 4, 6 * n + 1)
  if is_held then
    if redis.call('EXISTS', job_key(id)) == 1 then
      redis.call('RENAME', job_key(id), dead_payload_key(id))
      redis.call('PERSIST', dead_payload_key(id))
    end
    redis.call('ZADD', dead, as_score(now), id)
    redis.call('HSET', letters, id, record)
    redis.call('SET', result_key(id), result, 'PX', ARGV[1])
    buried[#buried + 1] = id
    notify(channel, id)
    count(counts)
    answers[n] = 1
  else
    answers[n] = 0
  end
end
remove_jobs(buried)
send_notifications()
write_counts()
return answers
