-- Settle jobs that are dead: keep each as a dead letter, store its result, let the next of its key come.
--
-- KEYS[1]  queue
-- ARGV[1]  result_ms  how long a result is kept
-- ARGV[2…] id, token, result, channel, letter (JSON: what is known of the death), tally of each
--          claim
--
-- The payload is renamed, not copied: whatever it is, of whatever type and size, it is kept whole under
-- arq:dead:<id>. The letters are in the hash <queue>:dead-letters, their times of death in the sorted set <queue>:dead.
--
-- Returns for each claim: 1 settled; 0 not held any more, nothing was changed.
-- Safe to repeat: the second time the token is gone and nothing is changed.

local dead, letters = queue .. ':dead', queue .. ':dead-letters'
local now = now_ms()

-- A key of another type is a stranger's: it is put aside whole, for it would hold up all that has to be settled.
local function make_way(key, kind)
  local found = redis.call('TYPE', key)
  found = type(found) == 'table' and found.ok or found
  if found ~= kind and found ~= 'none' then redis.call('RENAME', key, key .. ':foreign') end
end
make_way(dead, 'zset')
make_way(letters, 'hash')

local answers, left = {}, {}
for n, is_held in ipairs(held(2, 6)) do
  local id, _, result, channel, letter, tally = unpack(ARGV, 6 * n - 4, 6 * n + 1)
  if is_held then
    if redis.call('EXISTS', job_key(id)) == 1 then
      redis.call('RENAME', job_key(id), 'arq:dead:' .. id)
      redis.call('PERSIST', 'arq:dead:' .. id)
    end
    redis.call('ZADD', dead, as_score(now), id)
    redis.call('HSET', letters, id, letter)
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
