-- Keeps a message for a device, and rings its bell. One key slot.
--
--   redis-cli --eval send.lua '<P>:mbox:{<id>}' , '<P>:bell:<id>' '<data>' [option value]...
--
-- <P> is REDIS_PREFIX. In the key, %, { and } of the id are written %25, %7B and %7D. Options:
--   id        a name for the message; a second one of this name within the window is not kept again
--   ttl       milliseconds after which it is of no use
--   binary    1: the device gets a BINARY message
--   messages  most messages in this mailbox (1000); the oldest goes
--   bytes     most bytes of Redis for this mailbox (1048576; 0: any)
--   age       milliseconds for which a mailbox keeps a message (604800000)
--   window    milliseconds for which it knows a name (3600000)
-- Answers: the id of the message; 1 when it was there already; how many older ones went; how many subscribers heard the bell.
local stream, meta = KEYS[1], KEYS[1] .. ':meta'
local option = { messages = 1000, bytes = 1048576, age = 604800000, window = 3600000, ttl = 0, binary = 0, id = '', own = 0 }
for i = 3, #ARGV, 2 do
  if not option[ARGV[i]] or not ARGV[i + 1] then
    return redis.error_reply('ERR send.lua: ' .. ARGV[i] .. ' is no option, or has no value')
  end
  option[ARGV[i]] = ARGV[i + 1]
end
for _, name in ipairs({ 'messages', 'bytes', 'age', 'window', 'ttl' }) do
  option[name] = tonumber(option[name])
  if not option[name] then
    return redis.error_reply('ERR send.lua: ' .. name .. ' takes a number')
  end
end
local seen = stream .. ':id:' .. option.id
if option.id ~= '' and redis.call('EXISTS', seen) == 1 then
  return { option.id, 1, 0, 0 }
end
local entry = { 'data', ARGV[2] }
if option.id ~= '' then
  entry[#entry + 1] = 'id'
  entry[#entry + 1] = option.id
end
if option.ttl > 0 then
  local time = redis.call('TIME')
  entry[#entry + 1] = 'until'
  entry[#entry + 1] = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + option.ttl)
end
if option.binary == '1' then
  entry[#entry + 1] = 'binary'
  entry[#entry + 1] = '1'
end
local id = redis.call('XADD', stream, '*', unpack(entry))
if option.id ~= '' then
  redis.call('SET', seen, id, 'PX', string.format('%.0f', option.window))
  id = option.id
end
local gone = 0
local length = redis.call('XLEN', stream)
if length > option.messages then
  gone = redis.call('XTRIM', stream, 'MAXLEN', '=', string.format('%.0f', option.messages))
  length = length - gone
end
while option.bytes > 0 and length > 1 and redis.call('MEMORY', 'USAGE', stream) > option.bytes do
  local less = redis.call('XTRIM', stream, 'MAXLEN', '=', length - math.ceil(length / 16))
  gone, length = gone + less, length - less
end
if gone > 0 then
  redis.call('HINCRBY', meta, 'gone', gone)
  if option.own == 0 then
    redis.call('HINCRBY', meta, 'full', gone) -- the gateway that visits next tells of them
  end
end
-- A day more than messages live, so that a gateway finds and counts what is too old.
local rest = string.format('%.0f', option.age + 86400000)
redis.call('PEXPIRE', stream, rest)
redis.call('PEXPIRE', meta, rest)
local heard = redis.pcall('PUBLISH', ARGV[1], '1')
return { id, 0, gone, type(heard) == 'number' and heard or -1 }
