//! The lease of a gateway: renewed each second, and gone when others saw it unchanged for its length.

use std::{collections::HashMap, time::Duration};

use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep};

use super::{
    connect::Redis,
    error::{Failure, LinkError},
    script::Script,
};
use crate::node::NodeId;

/// The lease of this node, and its watch over the others, for as long as one connection lasts.
#[derive(Debug)]
pub(crate) struct Lease {
    /// Sorted set of nodes by the end of their lease, in unix milliseconds of Redis's clock.
    key: String,
    node: NodeId,
    /// Renewed also when Redis is out of memory.
    without_memory: bool,
    /// When Redis says that it ends.
    ends: String,
    watch: Watch,
    seconds: Interval,
}

/// What a renewal found.
#[derive(Debug)]
pub(crate) struct Renewal {
    /// Whether the lease had stood until now. Otherwise another node took this one for dead, or Redis lost its data.
    pub(crate) stood: bool,
    /// Whether another node had taken this one for dead, or Redis has nothing of it.
    pub(crate) was_given_up: bool,
    /// The time by Redis's clock, in microseconds.
    pub(crate) clock_us: u64,
    /// All who have a lease, this node included.
    #[cfg_attr(not(feature = "redis-spool"), allow(dead_code))]
    pub(crate) nodes: Vec<String>,
    /// Nodes that are gone, each with the end of its lease.
    pub(crate) gone: Vec<(String, String)>,
    /// Whether another node was seen to renew its lease since the link is there.
    pub(crate) has_company: bool,
}

impl Lease {
    pub(crate) fn new(key: &str, node: &NodeId) -> Self {
        let mut seconds = interval(RENEWAL);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            key: key.to_owned(),
            node: node.clone(),
            without_memory: false,
            ends: String::new(),
            watch: Watch::default(),
            seconds,
        }
    }

    /// The same, renewed also when Redis is out of memory.
    #[cfg_attr(not(feature = "redis-spool"), allow(dead_code))]
    pub(crate) fn without_memory(self) -> Self {
        Self {
            without_memory: true,
            ..self
        }
    }

    /// Renews it, and looks at the others.
    pub(crate) async fn renew(&mut self, redis: &mut Redis) -> Result<Renewal, Failure> {
        let mut renew = RENEW.on(&[&self.key]);
        renew.arg(&*self.node).arg(LEASE.as_millis() as u64);
        renew.arg(std::mem::take(&mut self.ends));
        if self.without_memory {
            renew.arg("oom");
        }
        let mut answer: Vec<String> = renew.query_async(redis).await?;
        if answer.len() < 3 {
            return Err(LinkError::new("the lease script gave no answer").into());
        }
        let leases = answer.split_off(3);
        self.ends = answer.swap_remove(1);
        let leases = || leases.chunks_exact(2).map(|pair| (&*pair[0], &*pair[1]));
        let others = leases().filter(|(node, _)| *node != &*self.node);
        Ok(Renewal {
            stood: answer[0] == "1",
            was_given_up: answer[0] == "0",
            clock_us: answer[1].parse().unwrap_or(0),
            nodes: leases().map(|(node, _)| node.to_owned()).collect(),
            gone: self.watch.look(Instant::now(), others),
            has_company: self.watch.has_company,
        })
    }

    /// Resolves when it is to be renewed.
    pub(crate) async fn due(&mut self) {
        self.seconds.tick().await;
    }

    /// The next renewal is due a second from now.
    pub(crate) fn renewed(&mut self) {
        self.seconds.reset();
    }

    /// Redis refuses. The others may be refused as well: their leases count from the next look.
    pub(crate) async fn refused(&mut self, wait: Duration) {
        self.watch = Watch::default();
        sleep(wait.saturating_sub(RENEWAL)).await;
    }
}

/// Who did not renew for how long, as far as this node saw. No I/O.
#[derive(Debug, Default)]
struct Watch {
    /// Each other node with the end of its lease and since when it stands there unchanged.
    seen: HashMap<String, (String, Instant)>,
    has_company: bool,
}

impl Watch {
    /// Takes note of the leases; returns those that were not renewed for as long as a lease lasts. It goes by what was
    /// seen on this connection and not by the ends: after a freeze or a restart of Redis all of them have passed.
    fn look<'a>(
        &mut self,
        now: Instant,
        leases: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Vec<(String, String)> {
        let mut still = HashMap::new();
        let mut gone = Vec::new();
        for (node, ends) in leases {
            let since = match self.seen.get(node) {
                Some((before, since)) if before == ends => *since,
                Some(_) => {
                    // Of one that is gone only whoever clears up after it renews anything.
                    self.has_company |= ends.parse().is_ok_and(|ends| !is_condemned(ends));
                    now
                }
                None => now,
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

/// Whether the end of a lease says that its node is gone, and that another clears up after it. Such an end counts how often that one has
/// said that it is still at it, where that of a living node is a time.
pub(crate) fn is_condemned(ends: u64) -> bool {
    ends < 1_000_000_000
}

/// Renews a lease, by Redis's own clock. `KEYS[1]`: the leases; `ARGV`: node, milliseconds, the end it had before, and
/// perhaps `oom`: also when Redis is out of memory. It then refuses the first write of a script if that needs some, and no other.
/// Answers whether that end still stood, the new end, the time in microseconds, and then each node with its end.
const RENEW: Script = Script::new(
    r"
local time = redis.call('TIME')
local ends = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[2])
local before = redis.call('ZSCORE', KEYS[1], ARGV[1])
local stood = before and tonumber(before) == tonumber(ARGV[3])
if ARGV[4] == 'oom' then
  redis.call('ZREM', KEYS[1], '')
end
redis.call('ZADD', KEYS[1], ends, ARGV[1])
local now_us = time[1] * 1000000 + time[2]
local is_there = before and tonumber(before) >= 1000000000
local answer = { stood and '1' or is_there and 'there' or '0', string.format('%.0f', ends), string.format('%.0f', now_us) }
for _, text in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')) do
  answer[#answer + 1] = text
end
return answer
",
);

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
