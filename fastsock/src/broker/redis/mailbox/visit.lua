-- Removes from a mailbox what its device has, and reads on. KEYS[1]: the stream. ARGV: owner (node:session), epoch, the last entry
-- read, messages and bytes to read, the age of messages, then entries to remove. One key slot.
--
-- The newest session owns the mailbox; an epoch that is yet to come is from before the clock was set back, and counts for old.
-- Answers: fenced or ok; 1 when there is more; how many are left; removed; lost as full, as expired, as bad; entries.
local stream, meta, owner = KEYS[1], KEYS[1] .. ':meta', ARGV[1]
if redis.call('EXISTS', stream) == 0 then
  if redis.call('EXISTS', meta) == 1 then
    redis.call('DEL', meta)
  end
  return { 'ok', 0, 0, 0, 0, 0, 0, {} }
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.call('HMGET', meta, 'owner', 'epoch', 'gone', 'full')
if held[1] ~= owner then
  local epoch = tonumber(held[2] or 0)
  if epoch > tonumber(ARGV[2]) and epoch < now + 2000 then
    return { 'fenced', 0, 0, 0, 0, 0, 0, {} }
  end
  redis.pcall('HSET', meta, 'owner', owner, 'epoch', ARGV[2]) -- a Redis whose memory is full still gives out what it has
end
local removed, expired, bad = 0, 0, 0
for first = 7, #ARGV, 1000 do
  removed = removed + redis.call('XDEL', stream, unpack(ARGV, first, math.min(first + 999, #ARGV)))
end
local cursor, want, room, age = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
if cursor == '0-0' then
  expired = redis.call('XTRIM', stream, 'MINID', '=', string.format('%.0f', now - age))
end
local found, bytes = {}, 0
while #found < want and (#found == 0 or bytes < room) do
  local some = 1
  if #found > 0 then
    some = math.max(1, math.min(64, want - #found, math.floor((room - bytes) / (bytes / #found + 1))))
  end
  local entries = redis.call('XRANGE', stream, '(' .. cursor, '+', 'COUNT', some)
  if #entries == 0 then
    break
  end
  for _, entry in ipairs(entries) do
    cursor = entry[1]
    local field = {}
    for i = 1, #entry[2], 2 do
      field[entry[2][i]] = entry[2][i + 1]
    end
    local data = field['data']
    if not data or #data > 16777216 then
      bad = bad + redis.call('XDEL', stream, cursor)
    elseif field['until'] and (tonumber(field['until']) or 0) <= now then
      expired = expired + redis.call('XDEL', stream, cursor)
    else
      bytes = bytes + #data
      found[#found + 1] = { cursor, data, field['id'] or '', field['binary'] or '' }
    end
  end
end
local left = redis.call('XLEN', stream)
local more = #redis.call('XRANGE', stream, '(' .. cursor, '+', 'COUNT', 1)
local known = tonumber(held[3] or 0)
local gone, full = known + removed + expired + bad, tonumber(held[4] or 0)
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
else
  if gone ~= known then
    redis.pcall('HSET', meta, 'gone', gone)
  end
  if held[4] then
    redis.call('HDEL', meta, 'full')
  end
  local rest = redis.call('PTTL', stream)
  if rest > 0 then
    redis.call('PEXPIRE', meta, rest)
  end
end
return { 'ok', more, left, removed, full, expired, bad, found }
