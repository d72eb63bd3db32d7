-- Redis's clock in µs, but one that never steps back; it stands before the scripts that need it.
--
-- When Redis's own clock steps back (it was set right, or a replica with another one took over), this one goes on from
-- where it was, a tenth slower, until the other has caught up. So neither do new jobs wait for that, nor leases.
--
-- The hash at `key` holds what both showed when it was last noted: `raw` is Redis's own.

local HUNDRED_YEARS_US = 100 * 365 * 24 * 60 * 60 * 1000000

local raw_us
do
  local time = redis.call('TIME')
  raw_us = time[1] * 1000000 + time[2]
end

-- The time, and when the clock was last noted (0: never, or by somebody else).
local function now_us(key)
  local noted = redis.pcall('HMGET', key, 'raw', 'now')
  local raw, now = tonumber(noted[1] or ''), tonumber(noted[2] or '') -- neither, for a key of another type
  if not raw or not now then return raw_us, 0 end
  if raw_us >= now then return raw_us, now end
  local gone_on = now + math.floor(0.9 * math.max(0, raw_us - raw))
  -- What is further ahead than any clock, or no number at all, somebody else has written.
  if not (gone_on < raw_us + HUNDRED_YEARS_US) then return raw_us, 0 end
  return gone_on, now
end

-- Lua by itself prints 14 digits of a number, which would round microseconds away.
local function note_clock(key, now)
  local values = {'raw', string.format('%.0f', raw_us), 'now', string.format('%.0f', now)}
  if type(redis.pcall('HSET', key, unpack(values))) == 'table' then -- of another type: nobody's but a stranger's
    redis.call('DEL', key)
    redis.call('HSET', key, unpack(values))
  end
end
