-- Removes what is too old from a mailbox, and tells what it holds. KEYS[1]: the stream. ARGV: the age of messages in milliseconds; how
-- many of the oldest are to go besides (0: none). One key slot.
--
-- It takes the mailbox from nobody: whoever visits it finds that what is gone was counted.
-- Answers: lost as expired, as full; messages left; bytes of Redis; the unix milliseconds of the oldest.
local stream, meta = KEYS[1], KEYS[1] .. ':meta'
if redis.call('TYPE', stream).ok ~= 'stream' then
  return { 0, 0, 0, 0, 0 }
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local age, surplus = tonumber(ARGV[1]), tonumber(ARGV[2])
local expired = redis.call('XTRIM', stream, 'MINID', '=', string.format('%.0f', now - age))
local left = redis.call('XLEN', stream)
local cut = 0
if surplus > 0 and left > 0 then
  cut = redis.call('XTRIM', stream, 'MAXLEN', '=', string.format('%.0f', math.max(0, left - surplus)))
  left = left - cut
end
local held = redis.call('HMGET', meta, 'gone', 'full')
local known, full = tonumber(held[1] or 0), tonumber(held[2] or 0) + cut
local gone = known + expired + cut
local info = redis.call('XINFO', 'STREAM', stream)
for i = 1, #info, 2 do
  if info[i] == 'entries-added' then -- Redis 7: what others have trimmed
    local missing = info[i + 1] - left - gone
    gone = gone + missing
    full = full + math.max(0, missing)
  end
end
if left == 0 then
  redis.call('DEL', stream, meta)
  return { expired, full, 0, 0, 0 }
end
if gone ~= known then
  redis.call('HSET', meta, 'gone', gone)
end
if held[2] then
  redis.call('HDEL', meta, 'full')
end
-- A day more than messages live, as with those that the script of publishers makes.
local rest = string.format('%.0f', age + 86400000)
if redis.call('PTTL', stream) < 0 then
  redis.call('PEXPIRE', stream, rest)
end
if redis.call('PTTL', meta) < 0 then
  redis.call('PEXPIRE', meta, rest)
end
local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1][1]
return { expired, full, left, redis.call('MEMORY', 'USAGE', stream), tonumber(string.match(first, '^%d+')) }
