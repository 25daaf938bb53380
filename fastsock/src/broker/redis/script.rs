//! The scripts of presence and leases. Each touches one key.

use crate::redis::script::Script;

/// Records who has seats. `KEYS[1]`: the owner hash; `ARGV`: node, `reject` or `replace`, then of each id, session, how, epoch.
///
/// How is `new`, or `takeover` where it replaces a session of its own node: the newest session wins. Its epoch is the time in
/// milliseconds, but higher than the one it finds, so it grows in whatever order gateways ask and however a clock is set. The given
/// one is when it was asked, 0 where that is not known: a question that was on its way for 2 s loses to a seat taken meanwhile. How is
/// `again` where a node restores what it had or could not ask for in time: then the given epoch decides. One that is yet to come is from
/// before the clock was set back (or of another server, before a failover), and counts for old.
///
/// An owner is `node:session:epoch`, and after takeovers `:count:since` of those within a span.
/// Answers for each id `+` and its epoch, followed by the node and session it was taken from if those are of another node; `-` and its
/// node when another has it; `taken` when it has it and may keep it; `many` when it changes hands too often.
pub(super) const CLAIM: Script = Script::new(
    r"
local node, is_reject, answer = ARGV[1], ARGV[2] == 'reject', {}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 3, #ARGV, 4 do
  local id, session, how, epoch = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
  local held = redis.call('HGET', KEYS[1], id)
  local their_node, their_session, their_epoch, count, since
  if held then
    their_node, their_session, their_epoch, count, since =
      string.match(held, '^([^:]*):([^:]*):(%d+):?(%d*):?(%d*)$')
  end
  their_epoch = tonumber(their_epoch or 0)
  local is_elsewhere = their_node and their_node ~= node
  local verdict, takeovers = '+', ''
  if how == 'again' then
    if is_elsewhere then
      if their_epoch > epoch and (their_epoch < now + 2000 or epoch >= now + 2000) then
        verdict = '- ' .. their_node
      end
    elseif their_node and tonumber(their_session) > tonumber(session) then
      verdict = 'later'
    end
  elseif is_elsewhere and is_reject then
    verdict = 'taken'
  elseif is_elsewhere and epoch > 0 and epoch < now - 2000 and their_epoch > epoch and their_epoch <= now then
    verdict = '- ' .. their_node
  else
    epoch = now
    if is_elsewhere or how == 'takeover' then
      count, since = tonumber(count or '') or 0, tonumber(since or '') or 0
      if math.abs(now - since) > 10000 then
        count, since = 0, now
      end
      if count >= 100 then
        verdict = 'many'
      end
      takeovers = string.format(':%d:%.0f', count + 1, since)
    end
  end
  if verdict == '+' then
    local is_same = their_node == node and their_session == session
    epoch = math.max(epoch, is_same and their_epoch or their_epoch + 1)
    local text = string.format('%.0f', epoch)
    redis.call('HSET', KEYS[1], id, node .. ':' .. session .. ':' .. text .. takeovers)
    answer[#answer + 1] = '+ ' .. text .. (is_elsewhere and (' ' .. their_node .. ' ' .. their_session) or '')
  elseif verdict == 'later' then
    answer[#answer + 1] = string.format('+ %.0f', their_epoch)
  else
    answer[#answer + 1] = verdict
  end
end
return answer
",
);

/// Gives up seats. `KEYS[1]`: the owner hash; `ARGV`: node, then id and session of each. Answers 1 for each id that neither another
/// node has nor a later session of this one.
pub(super) const RELEASE: Script = Script::new(
    r"
local answer = {}
for i = 2, #ARGV, 2 do
  local held = redis.call('HGET', KEYS[1], ARGV[i])
  local node, session
  if held then
    node, session = string.match(held, '^([^:]*):(%d+):')
  end
  if held and (node ~= ARGV[1] or tonumber(session) > tonumber(ARGV[i + 1])) then
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

/// Condemns a node: marks its lease as ended, so that the node sees it should it come back. `KEYS[1]`: the leases; `ARGV`: node, the
/// end it was seen with. Answers the mark when that still stood, else 0. The mark is 1, and one more each time whoever clears up after
/// the node says that it is still at it: if that one dies too, the mark stands still and another goes on.
pub(super) const CONDEMN: Script = Script::new(
    r"
local ends = redis.call('ZSCORE', KEYS[1], ARGV[1])
if ends ~= ARGV[2] then
  return 0
end
local mark = 1
if tonumber(ends) < 1000000000 then
  mark = tonumber(ends) + 1
end
redis.call('ZADD', KEYS[1], mark, ARGV[1])
return mark
",
);

/// Removes a condemned lease. `KEYS[1]`: the leases; `ARGV`: node, its mark.
pub(super) const FORGET: Script = Script::new(
    r"
if redis.call('ZSCORE', KEYS[1], ARGV[1]) == ARGV[2] then
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return 1
",
);
