//! The scripts of presence and leases. Each touches one key.

use crate::redis::script::Script;

/// Records who has seats. `KEYS[1]`: the owner hash; `ARGV`: node, then id, session, epoch of each.
///
/// The epoch is when the seat was taken, in milliseconds of Redis's clock as the node knows it. The newest seat wins in
/// whatever order the claims come, so a gateway that restores its seats does not take what went elsewhere meanwhile. An epoch
/// that is yet to come is from before the clock was set back (or of another server, before a failover), and counts for old.
/// Answers for each id `+`, followed by the node and session it was taken from if those are of another node; or `-` when
/// another node has it.
pub(super) const CLAIM: Script = Script::new(
    r"
local node, answer = ARGV[1], {}
local to_come = redis.call('TIME')[1] * 1000 + 2000
for i = 2, #ARGV, 3 do
  local id, session, epoch = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local held = redis.call('HGET', KEYS[1], id)
  local their_node, their_session, their_epoch
  if held then
    their_node, their_session, their_epoch = string.match(held, '^([^:]*):([^:]*):(%d+)$')
  end
  local is_elsewhere = their_node and their_node ~= node
  their_epoch = tonumber(their_epoch or 0)
  if is_elsewhere and their_epoch > tonumber(epoch) and their_epoch < to_come then
    answer[#answer + 1] = '-'
  else
    redis.call('HSET', KEYS[1], id, node .. ':' .. session .. ':' .. epoch)
    answer[#answer + 1] = is_elsewhere and ('+ ' .. their_node .. ' ' .. their_session) or '+'
  end
end
return answer
",
);

/// Gives up seats. `KEYS[1]`: the owner hash; `ARGV`: node, then ids. Answers 1 for each id that no other node has.
pub(super) const RELEASE: Script = Script::new(
    r"
local answer, own = {}, ARGV[1] .. ':'
for i = 2, #ARGV do
  local held = redis.call('HGET', KEYS[1], ARGV[i])
  if held and string.sub(held, 1, #own) ~= own then
    answer[#answer + 1] = 0
  else
    if held then
      redis.call('HDEL', KEYS[1], ARGV[i])
    end
    answer[#answer + 1] = 1
  end
end
return answer
",
);

/// Removes who left. `KEYS[1]`: the hash of clients; `ARGV`: id, least and most of each. A field goes only while its
/// value is within the two: what another gateway wrote stays.
pub(super) const REMOVE: Script = Script::new(
    r"
local removed = 0
for i = 1, #ARGV, 3 do
  local seen = tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or '')
  if seen and seen >= tonumber(ARGV[i + 1]) and seen <= tonumber(ARGV[i + 2]) then
    removed = removed + redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return removed
",
);

/// Marks a lease as ended, so that its node sees it should it come back. `KEYS[1]`: the leases; `ARGV`: node, the end it
/// was seen with. Answers 1 when that still stood.
pub(super) const EXPIRE: Script = Script::new(
    r"
if redis.call('ZSCORE', KEYS[1], ARGV[1]) ~= ARGV[2] then
  return 0
end
redis.call('ZADD', KEYS[1], 1, ARGV[1])
return 1
",
);

/// Removes a lease marked as ended. `KEYS[1]`: the leases; `ARGV`: node.
pub(super) const FORGET: Script = Script::new(
    r"
if redis.call('ZSCORE', KEYS[1], ARGV[1]) == '1' then
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return 1
",
);
