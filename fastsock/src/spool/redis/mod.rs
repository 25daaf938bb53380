//! The spool of several processes: uplinks in 16 Redis streams, each read and delivered by the one gateway that owns it.
//!
//! A stream holds what was taken and is not delivered yet, in the order in which it was taken, and nothing else: what is
//! delivered is deleted. So its owner simply reads it (`XREAD`) from the start, again after every error, and knows what it
//! holds already by the messages' keys. A consumer group would keep a second list of the same; and a blocked XREADGROUP of
//! an owner that is one no more would take entries away from the next, where a plain read does no harm.
//!
//! - `link`: the cmd link; writes what sessions say (`append`), removes what is delivered (`removal`), keeps the lease and shares out
//!   the shards (`ownership`).
//! - `reader`: a connection of its own for blocking reads.
//! - `restoring`: what is held here is written again when Redis has lost it.
//! - `shards`: who owns what, and what is held of it. No I/O.

mod append;
mod entry;
mod letters;
mod link;
mod ownership;
mod reader;
mod removal;
mod restoring;
mod script;
mod shards;

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use self::{
    restoring::Restoring,
    shards::{SHARDS, Shards, shard_of},
};
use super::{Place, Record, Settle, Spool, SpoolFigures, record};
use crate::{
    config::Config,
    error::Result,
    histogram::Histogram,
    locks::Mutex,
    node::NodeId,
    redis::{address::Address, connect::Redis, glob::escaped, rights::Rights, trouble::Troubles},
    tasks::{BoxFuture, Tasks},
    types::{ClientId, DeadLetter},
};

/// Keeps uplinks in Redis.
pub(crate) struct RedisSpool {
    shared: Arc<Shared>,
    tasks: Tasks,
    /// The tasks of this spool alone, so that `stop` can wait for them.
    alive: TaskTracker,
}

/// What the tasks of one spool hold.
struct Shared {
    address: Address,
    names: Names,
    /// What Redis refuses.
    troubles: Troubles,
    /// This bridge among those that deliver.
    node: NodeId,
    /// Messages, and bytes of them, that one stream may hold.
    most: (u64, u64),
    /// Replicas that must have a message before it counts as taken.
    replicas: usize,
    /// Dead letters of one shard, and milliseconds one is kept.
    most_letters: (u64, u64),
    /// Entries of each stream to be read at once.
    count: usize,
    lanes: OnceLock<Weak<dyn Settle>>,
    /// What writing takes, replicas included.
    commits: Histogram,

    /// The cmd link while it is usable.
    cmd: Mutex<Option<Redis>>,
    shards: Mutex<Shards>,
    /// How many dead letters each shard has, as far as this node knows.
    letters: Mutex<[u64; SHARDS]>,
    /// Until when what is owned here may be delivered: nobody else can have taken it over by then.
    lease_ends: Mutex<Option<Instant>>,
    /// What was handed over and is not in Redis yet, in order, by shard.
    appends: Mutex<[VecDeque<Record>; SHARDS]>,
    has_appends: Notify,
    /// What Redis lost and is held here, to be written again before anything of its shard is read.
    restoring: Mutex<Vec<Restoring>>,
    /// Something may be removed from Redis.
    has_acks: Notify,
    /// A shard may be given up.
    has_left: Notify,
    /// Readers are to look again whether they may read.
    read_on: Notify,

    /// Ends the tasks once everything is written and given up.
    stop: CancellationToken,
    /// Ends them wherever they are.
    cut: CancellationToken,
}

/// The keys of a spool.
struct Names {
    /// Streams of what is taken and not delivered.
    streams: [String; SHARDS],
    /// `node epoch` of who delivers it.
    owners: [String; SHARDS],
    /// What the messages of a stream cost together.
    bytes: [String; SHARDS],
    /// Hashes of dead letters by id.
    dead: [String; SHARDS],
    /// Sorted sets of the same ids by when they were given up, in unix milliseconds of Redis's clock.
    dead_times: [String; SHARDS],
    /// Sorted set of nodes by the end of their lease.
    nodes: String,
}

impl Names {
    fn new(prefix: &str) -> Self {
        let each = |kind: &str, rest: &str| {
            std::array::from_fn(|n| format!("{prefix}:{kind}:{{{n}}}{rest}"))
        };
        Self {
            streams: each("uplink", ""),
            owners: each("uplink", ":owner"),
            bytes: each("uplink", ":bytes"),
            dead: each("dead", ""),
            dead_times: each("dead", ":times"),
            nodes: format!("{prefix}:uplink:nodes"),
        }
    }
}

impl RedisSpool {
    /// Prepares a spool; [`Spool::start`] begins to keep its links.
    ///
    /// # Errors
    /// `Config`, naming `FASTSOCK_REDIS_URL` or the setting of a certificate file.
    pub(crate) fn new(config: &Config, node: &NodeId, tasks: &Tasks) -> Result<Self> {
        let (address, names) = (
            Address::from_config(config)?,
            Names::new(&config.redis.prefix),
        );
        let rights = rights(config, &address);
        let a_reading = config.limits.message_bytes.saturating_mul(SHARDS);
        let shared = Shared {
            troubles: Troubles::new(address.clone(), rights),
            address,
            names,
            node: node.clone(),
            most: (
                a_share(config.spool.max_messages),
                a_share(config.spool.max_bytes),
            ),
            replicas: config.spool.replicas,
            most_letters: (
                a_share(config.spool.dead_letters_max),
                config.spool.dead_letters_max_age.as_millis() as u64,
            ),
            count: (config.uplinks.total_bytes / a_reading).clamp(1, COUNT_MAX),
            lanes: OnceLock::new(),
            commits: Histogram::default(),
            cmd: Mutex::default(),
            shards: Mutex::default(),
            letters: Mutex::default(),
            lease_ends: Mutex::default(),
            appends: Mutex::default(),
            has_appends: Notify::new(),
            restoring: Mutex::default(),
            has_acks: Notify::new(),
            has_left: Notify::new(),
            read_on: Notify::new(),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
        };
        let alive = TaskTracker::new();
        alive.close(); // only so that `wait` can end
        Ok(Self {
            shared: Arc::new(shared),
            tasks: tasks.clone(),
            alive,
        })
    }
}

impl Spool for RedisSpool {
    fn figures(&self) -> SpoolFigures {
        SpoolFigures {
            commits: self.shared.commits.snapshot(),
            file_bytes: None,
        }
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn start(&self, lanes: Weak<dyn Settle>) {
        let shared = &self.shared;
        if shared.lanes.set(lanes).is_err() {
            return; // it runs
        }
        shared.tell(|lanes| lanes.failing(true)); // until Redis has answered
        let link = link::keep(Arc::clone(shared));
        self.tasks.spawn(self.alive.track_future(link));
        for group in reader::groups(&shared.address) {
            let reader = reader::keep(Arc::clone(shared), group);
            self.tasks.spawn(self.alive.track_future(reader));
        }
        // A bridge that is dropped without `stop` takes its links along.
        let (group, shared, all_ended) =
            (self.tasks.clone(), Arc::clone(shared), self.alive.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = group.stopping() => shared.cut.cancel(),
                () = all_ended.wait() => {}
            }
        });
    }

    fn append(&self, record: Record) {
        let n = shard_of(record.uplink.client_id.as_str());
        self.shared.appends.lock()[n].push_back(record);
        self.shared.has_appends.notify_one();
    }

    fn remove(&self, place: Place) {
        let n = shard_of(place.client_id.as_str());
        self.shared.done(n, place.number, None);
    }

    fn bury(&self, number: u64, letter: DeadLetter) {
        let n = shard_of(letter.uplink.client_id.as_str());
        let letter = record::write_letter(&letter);
        self.shared.done(n, number, Some(letter));
    }

    fn load(&self, _: ClientId, _: Option<u64>, _: usize) {} // never asked: all is passed on

    fn dead_letters(
        &self,
        after: Option<Uuid>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<DeadLetter>>> {
        Box::pin(letters::list(&self.shared, after, limit))
    }

    fn dead_letter(&self, id: Uuid) -> BoxFuture<'_, Result<Option<DeadLetter>>> {
        Box::pin(letters::get(&self.shared, id))
    }

    fn replay(&self, id: Uuid) -> BoxFuture<'_, Result<bool>> {
        Box::pin(letters::replay(&self.shared, id))
    }

    fn drop_letter(&self, id: Uuid) -> BoxFuture<'_, Result<bool>> {
        Box::pin(letters::drop_letter(&self.shared, id))
    }

    fn returned(&self, place: Place) {
        let n = shard_of(place.client_id.as_str());
        self.shared.shards.lock().returned(n, place.number);
        self.shared.has_left.notify_one();
    }

    fn may_deliver(&self, client_id: &ClientId) -> bool {
        let n = shard_of(client_id.as_str());
        self.shared.has_lease() && self.shared.shards.lock().is_here(n)
    }

    fn stop(&self, deadline: Instant) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let shared = &self.shared;
            shared.stop.cancel();
            let _ = timeout_at(deadline, self.alive.wait()).await;
            shared.cut.cancel();
            let _ = timeout(CUT_TIMEOUT, self.alive.wait()).await;
        })
    }

    fn abort(&self) {
        self.shared.cut.cancel();
    }
}

impl Shared {
    fn tell(&self, tell: impl FnOnce(&dyn Settle)) {
        if let Some(lanes) = self.lanes.get().and_then(Weak::upgrade) {
            tell(&*lanes);
        }
    }

    /// A message needs no place in Redis any more; `letter` is to be kept of it.
    fn done(&self, n: usize, number: u64, letter: Option<Vec<u8>>) {
        if self.shards.lock().done(n, number, letter) {
            self.has_acks.notify_one();
        }
        self.read_on.notify_waiters(); // there may be room
    }

    /// So many dead letters are in these shards now; `dropped` were dropped here.
    fn letters_changed(&self, now: &[(usize, u64)], dropped: u64) {
        let (before, kept) = {
            let mut letters = self.letters.lock();
            let before: u64 = letters.iter().sum();
            for (n, count) in now {
                letters[*n] = *count;
            }
            (before, letters.iter().sum::<u64>())
        };
        if kept != before || dropped > 0 {
            self.tell(|lanes| lanes.buried(kept, dropped));
        }
    }

    /// Whether what is owned here may be delivered now.
    fn has_lease(&self) -> bool {
        let ends = *self.lease_ends.lock();
        ends.is_some_and(|ends| Instant::now() < ends)
    }

    /// What is not to be delivered from here any more. Those in flight come back by `remove` or `returned`.
    fn withdraw(&self, places: &[Place]) {
        if !places.is_empty() {
            self.tell(|lanes| lanes.withdraw(places));
        }
    }
}

impl fmt::Debug for RedisSpool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSpool")
            .field("node", &self.shared.node)
            .finish_non_exhaustive()
    }
}

impl Drop for RedisSpool {
    fn drop(&mut self) {
        self.shared.cut.cancel();
    }
}

/// What the user of Redis must be allowed.
pub(crate) fn rights(config: &Config, address: &Address) -> Rights {
    let mut rights = Rights::new("the spool");
    rights.commands(address.commands());
    rights.commands(&["eval x 0", "time"]);
    if config.spool.replicas > 0 {
        rights.commands(&["wait 0 0"]);
    }
    let prefix = &config.redis.prefix;
    for (kind, commands) in [("uplink", OF_UPLINKS), ("dead", OF_LETTERS)] {
        let key = format!("{prefix}:{kind}:");
        let pattern = format!("{}*", escaped(&key));
        rights.key(&pattern, &key);
        rights.on(&pattern, &key, commands);
    }
    rights
}

/// What is sent to streams, their owners and leases, each with all its arguments.
const OF_UPLINKS: &[&str] = &[
    "zadd % 1 x",
    "zscore % x",
    "zrange % 0 1",
    "get %",
    "set % x",
    "persist %",
    "del %",
    "incrby % 1",
    "decrby % 1",
    "xadd % * x x",
    "xlen %",
    "xdel % 0-1",
    "xread count 1 streams % 0",
];

/// The same of dead letters.
const OF_LETTERS: &[&str] = &[
    "hset % x x",
    "hget % x",
    "hdel % x",
    "hlen %",
    "hkeys %",
    "hexists % x",
    "zrangebyscore % 0 1",
    "zrem % x",
];

/// What one shard may have of what all may.
fn a_share(most: usize) -> u64 {
    most.div_ceil(SHARDS) as u64
}

/// Entries of each stream read at once, if they are small.
const COUNT_MAX: usize = 256;

/// Ending a task takes one poll; only a runtime that is gone takes longer.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);
