//! The scripts of the spool. All keys of one have one hash tag.

use crate::redis::script::Script;

/// Adds messages. `KEYS`: the stream, its bytes; `ARGV`: how many messages and how many bytes it may hold (it takes one
/// more below a bound), then client id, content and cost of each. Answers how many were added; the rest found it full.
///
/// The bytes come first though nothing is added to them yet: if that is refused, nothing is done.
pub(super) const ADD: Script = Script::new(
    r"
local count, bytes = redis.call('XLEN', KEYS[1]), tonumber(redis.call('GET', KEYS[2]) or 0)
local added, before = 0, bytes
for i = 3, #ARGV, 3 do
  if count >= tonumber(ARGV[1]) or bytes >= tonumber(ARGV[2]) then
    break
  end
  if added == 0 then
    redis.call('INCRBY', KEYS[2], 0)
  end
  redis.call('XADD', KEYS[1], '*', 'c', ARGV[i], 'u', ARGV[i + 1])
  count, bytes, added = count + 1, bytes + ARGV[i + 2], added + 1
end
if added > 0 then
  redis.call('INCRBY', KEYS[2], string.format('%.0f', bytes - before))
end
return added
",
);

/// Looks at a shard. `KEYS`: its owner, its dead letters, their times, its stream; `ARGV`: the owner who clears up, and the most
/// milliseconds a letter is kept. Answers the owner, how many letters there are, how many were too old, and how many messages there are.
pub(super) const LOOK: Script = Script::new(
    r"
local owner, dropped = redis.call('GET', KEYS[1]) or '', 0
if owner ~= '' and owner == ARGV[1] then
  local until_ms = redis.call('TIME')[1] * 1000 - ARGV[2]
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', string.format('%.0f', until_ms), 'LIMIT', 0, 100)) do
    redis.call('ZREM', KEYS[3], id)
    dropped = dropped + redis.call('HDEL', KEYS[2], id)
  end
end
return { owner, redis.call('HLEN', KEYS[2]), dropped, redis.call('XLEN', KEYS[4]) }
",
);

/// Takes a shard over. `KEYS[1]`: its owner; `ARGV`: node, the owner it was seen with (empty: none).
/// Answers the new owner, whose epoch is one more; nothing when somebody was faster.
///
/// A Redis without memory refuses the first write of a script if it needs some, and no other. So the first one needs none:
/// only an owner frees memory by delivering.
pub(super) const TAKE: Script = Script::new(
    r"
local before = redis.call('GET', KEYS[1]) or ''
if before ~= ARGV[2] then
  return false
end
local epoch = tonumber(string.match(before, ' (%d+)$') or 0) + 1
local owner = ARGV[1] .. ' ' .. string.format('%.0f', epoch)
redis.call('PERSIST', KEYS[1])
redis.call('SET', KEYS[1], owner)
return owner
",
);

/// Gives a shard up; its epoch stays. `KEYS[1]`: its owner; `ARGV`: the owner it must have. Without memory, as [`TAKE`].
pub(super) const RELEASE: Script = Script::new(
    r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('PERSIST', KEYS[1])
redis.call('SET', KEYS[1], '-' .. string.match(ARGV[1], ' %d+$'))
return 1
",
);

/// Removes messages that are delivered or given up, and keeps letters of the latter. `KEYS`: the stream, its owner, its
/// bytes, the dead letters, their times; `ARGV`: the owner it must have, how many letters there may be, how many entries
/// go, entry and cost of each, then id and content of each letter.
/// Answers how many letters there are and how many had to go for them; or, with nothing done, -1 when the shard is another
/// owner's, and -2 when Redis has lost whose it is: there is no owner, or one of an epoch that is no later.
pub(super) const SETTLE: Script = Script::new(
    r"
local owner = redis.call('GET', KEYS[2])
if owner ~= ARGV[1] then
  local epoch = owner and tonumber(string.match(owner, ' (%d+)$')) or 0
  return { epoch > tonumber(string.match(ARGV[1], ' (%d+)$')) and -1 or -2, 0 }
end
local freed, last = 0, 3 + 2 * ARGV[3]
for i = 4, last, 2 do
  if redis.call('XDEL', KEYS[1], ARGV[i]) == 1 then
    freed = freed + ARGV[i + 1]
  end
end
if redis.call('XLEN', KEYS[1]) == 0 then
  redis.call('DEL', KEYS[3])
else
  redis.call('DECRBY', KEYS[3], string.format('%.0f', freed))
end
local now_ms = string.format('%.0f', redis.call('TIME')[1] * 1000)
for i = last + 1, #ARGV, 2 do
  redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 1])
  redis.call('ZADD', KEYS[5], now_ms, ARGV[i])
end
local dropped = 0
while redis.call('HLEN', KEYS[4]) > tonumber(ARGV[2]) do
  local oldest = redis.call('ZRANGE', KEYS[5], 0, 0)[1]
  if not oldest then
    break
  end
  redis.call('ZREM', KEYS[5], oldest)
  dropped = dropped + redis.call('HDEL', KEYS[4], oldest)
end
return { redis.call('HLEN', KEYS[4]), dropped }
",
);

/// Drops a dead letter, or makes it a message again. `KEYS`: the dead letters, their times, the stream, its bytes;
/// `ARGV`: its id, and for a message client id, content and cost. Answers whether it was there, and how many are left.
///
/// It is a message before it is no letter any more: if one of the two is refused, it is twice there rather than nowhere.
pub(super) const DROP: Script = Script::new(
    r"
local was_there = redis.call('HEXISTS', KEYS[1], ARGV[1])
if was_there == 1 and ARGV[2] then
  redis.call('XADD', KEYS[3], '*', 'c', ARGV[2], 'u', ARGV[3])
  redis.call('INCRBY', KEYS[4], ARGV[4])
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return { was_there, redis.call('HLEN', KEYS[1]) }
",
);

/// Forgets a node that is gone. `KEYS[1]`: the leases; `ARGV`: node, the end it was seen with.
pub(super) const FORGET: Script = Script::new(
    r"
if redis.call('ZSCORE', KEYS[1], ARGV[1]) == ARGV[2] then
  return redis.call('ZREM', KEYS[1], ARGV[1])
end
return 0
",
);
