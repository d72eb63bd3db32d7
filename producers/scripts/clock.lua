-- The queue's clock: Redis's own in microseconds, but it never steps back. It comes before the scripts that use it.
--
-- When Redis's clock steps back (it was corrected, or a replica with another clock took over), the queue's clock
-- continues from its last time at nine tenths of the speed until Redis's has caught up. So neither new jobs nor leases
-- wait for that.
--
-- The hash at `key` holds both times when they were last noted: `raw` is Redis's own.

local HUNDRED_YEARS_US = 100 * 365 * 24 * 60 * 60 * 1000000

local raw_us
do
  local time = redis.call('TIME')
  raw_us = time[1] * 1000000 + time[2]
end

-- The time, and when the clock was last noted (0: never, or by a foreign client).
local function now_us(key)
  local noted = redis.pcall('HMGET', key, 'raw', 'now')
  local raw, now = tonumber(noted[1] or ''), tonumber(noted[2] or '') -- both nil for a key of another type
  if not raw or not now then return raw_us, 0 end
  if raw_us >= now then return raw_us, now end
  local continued = now + math.floor(0.9 * math.max(0, raw_us - raw))
  -- Another client wrote NaN, or a time no clock can have reached.
  if not (continued < raw_us + HUNDRED_YEARS_US) then return raw_us, 0 end
  return continued, now
end

-- Lua itself prints 14 digits of a number, which would round microseconds away.
local function note_clock(key, now)
  local values = {'raw', string.format('%.0f', raw_us), 'now', string.format('%.0f', now)}
  if type(redis.pcall('HSET', key, unpack(values))) == 'table' then -- a foreign client's key of another type
    redis.call('DEL', key)
    redis.call('HSET', key, unpack(values))
  end
end
