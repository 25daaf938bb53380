//! The lease of a gateway: how it is renewed, and when that of another has ended.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

/// Who did not renew for how long, as far as this node saw. No I/O.
#[derive(Default)]
pub(crate) struct Watch {
    /// Each other node with the end of its lease and since when it stands there unchanged.
    seen: HashMap<String, (String, Instant)>,
}

impl Watch {
    /// Takes note of the leases; returns those that were not renewed for as long as a lease lasts. It goes by what was
    /// seen on this connection and not by the ends: after a freeze or a restart of Redis all of them have passed.
    pub(crate) fn look<'a>(
        &mut self,
        now: Instant,
        leases: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Vec<(String, String)> {
        let mut still = HashMap::new();
        let mut gone = Vec::new();
        for (node, ends) in leases {
            let since = match self.seen.get(node) {
                Some((before, since)) if before == ends => *since,
                _ => now,
            };
            if now.duration_since(since) + ROUNDING >= LEASE {
                gone.push((node.to_owned(), ends.to_owned()));
            }
            still.insert(node.to_owned(), (ends.to_owned(), since));
        }
        self.seen = still;
        gone
    }
}

/// Renews a lease, by Redis's own clock. `KEYS[1]`: the leases; `ARGV`: node, milliseconds, the end it had before, and
/// perhaps `oom`: also when Redis is out of memory. It then refuses the first write of a script if that needs some, and no other.
/// Answers whether that end still stood, the new end, the time in microseconds, and then each node with its end.
pub(crate) const RENEW: &str = r"
local time = redis.call('TIME')
local ends = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[2])
local before = redis.call('ZSCORE', KEYS[1], ARGV[1])
local stood = before and tonumber(before) == tonumber(ARGV[3])
if ARGV[4] == 'oom' then
  redis.call('ZREM', KEYS[1], '')
end
redis.call('ZADD', KEYS[1], ends, ARGV[1])
local now_us = time[1] * 1000000 + time[2]
local answer = { stood and '1' or '0', string.format('%.0f', ends), string.format('%.0f', now_us) }
for _, text in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')) do
  answer[#answer + 1] = text
end
return answer
";

pub(crate) const LEASE: Duration = Duration::from_secs(3);
pub(crate) const RENEWAL: Duration = Duration::from_secs(1);

/// The third look after the first is meant to be the one that decides.
pub(crate) const ROUNDING: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_dead_when_it_was_seen_unchanged_for_its_length() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let mut look = |second: u64, ends: &str| {
            let now = start + Duration::from_secs(second);
            let gone = watch.look(now, [("a", ends)].into_iter());
            gone.len()
        };
        assert_eq!(look(0, "5"), 0, "however old it is at first sight");
        assert_eq!(look(1, "5"), 0);
        assert_eq!(look(2, "6"), 0);
        assert_eq!((look(3, "6"), look(4, "6")), (0, 0));
        assert_eq!(look(5, "6"), 1);
        assert_eq!(look(6, "9"), 0, "it came back");
    }
}
