//! The spool and dead letters.

use std::{path::PathBuf, time::Duration};

use super::super::{Fsync, SpoolKind, is_within, section::section};

section! {
    /// The spool and dead letters.
    Spool = spool, "The spool and dead letters";
    /// Where uplinks wait until they are delivered. `memory`: in this process; they end with it. `disk`: on the disk; they outlive the process. `redis`: in Redis; other gateways deliver them when this one is gone (docs/delivery.md).
    spool => kind: SpoolKind = SpoolKind::Memory, "FASTSOCK_SPOOL", "memory, disk or redis", "disk";
    /// When the disk spool syncs. `always`: before a message counts as taken. `interval`: every `FASTSOCK_SPOOL_FSYNC_INTERVAL`; a kill or a power loss costs at most what was taken within it.
    spool_fsync => fsync: Fsync = Fsync::Always, "FASTSOCK_SPOOL_FSYNC", "always or interval", "interval";
    /// Milliseconds between syncs with `interval`.
    spool_fsync_interval => fsync_interval: Duration = Duration::from_millis(100), "FASTSOCK_SPOOL_FSYNC_INTERVAL", "milliseconds from 1 to 60000", "50ms", |d| is_within(d, 1, 60_000);
    /// Bytes that a durable spool holds, counted as in a lane. When it is full, `FASTSOCK_UPLINK_FULL` decides on disk, and sessions wait in Redis. The file is larger than this by what redb needs. In Redis each of the 16 streams holds a 16th.
    spool_max_bytes => max_bytes: usize as bytes = 1 << 30, "FASTSOCK_SPOOL_MAX_BYTES", "bytes from 1 to 1099511627776", "10GiB", |n| (1..=1u64 << 40).contains(&(*n as u64));
    /// Messages that a durable spool holds.
    spool_max_messages => max_messages: usize = 1_000_000, "FASTSOCK_SPOOL_MAX_MESSAGES", "an integer from 1 to 1000000000", "5000000", |n| (1..=1_000_000_000).contains(n);
    /// Replicas of Redis that must have a message before it counts as taken in the spool in Redis. While fewer have it within a second, sessions wait. 0: a failover may lose what was taken in the last moments before it.
    spool_replicas => replicas: usize = 0, "FASTSOCK_SPOOL_REPLICAS", "an integer from 0 to 16", "1", |n| *n <= 16;
    /// Bytes that the lane of one device holds in the disk spool, so that no device fills it alone.
    spool_lane_bytes => lane_bytes: usize as bytes = 64 << 20, "FASTSOCK_SPOOL_LANE_BYTES", "bytes from 1 to 1099511627776", "16MiB", |n| (1..=1u64 << 40).contains(&(*n as u64));
    /// Directory of what outlives the process: the disk spool, and without Redis who was connected, for the events of a gateway that was killed. The gateway makes it with mode 0700 when it is not there. One process uses it at a time.
    data_dir => data_dir: Option<PathBuf> as directory = None, "FASTSOCK_DATA_DIR", "the path of a directory", "/var/lib/fastsock";
    /// Dead letters that the gateway keeps; beyond that, it drops the oldest. With the memory spool it keeps at most 1,000 of together 1 MiB. 0 keeps none.
    dead_letters_max => dead_letters_max: usize = 10_000, "FASTSOCK_DEAD_LETTERS_MAX", "an integer from 0 to 1000000", "1000", |n| *n <= 1_000_000;
    /// Milliseconds for which the gateway keeps a dead letter after it gave it up.
    dead_letters_max_age => dead_letters_max_age: Duration = Duration::from_secs(30 * 24 * 3600), "FASTSOCK_DEAD_LETTERS_MAX_AGE", "milliseconds from 1000 to 315360000000", "7d", |d| is_within(d, 1000, 315_360_000_000);
}
