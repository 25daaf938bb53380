//! What an operator is told of devices that are turned away or have to wait: a line for the first, then at most one in ten seconds with their number.

use std::sync::Arc;

use tokio::time::{Instant, sleep};

use crate::{
    locks::Mutex,
    pure::tally::{EVERY, Tally},
    remote_addr::RemoteAddr,
    tasks::Tasks,
};

/// Who was turned away, by the reason.
pub(crate) struct Notices(Arc<Mutex<Tally<String>>>);

impl Notices {
    /// A task tells of the last ones, after which nothing more happens.
    pub(crate) fn start(workers: &Tasks) -> Self {
        let tally = Arc::new(Mutex::new(Tally::<String>::new()));
        let waiting = tally.clone();
        workers.spawn_until_stopped(async move {
            loop {
                sleep(EVERY).await;
                let due = waiting.lock().due(Instant::now());
                due.iter().for_each(|(reason, count)| tell(reason, *count));
            }
        });
        Self(tally)
    }

    /// A limit refuses a connection. The reasons are few, and of our making.
    pub(super) fn limit(&self, reason: &str, addr: RemoteAddr) {
        if let Some(count) = self.count(reason) {
            tracing::warn!(remote_addr = %addr, reason, count, "{TURNED_AWAY}");
        }
    }

    /// A device says more than it may.
    pub(super) fn rate(&self, client_id: &str) {
        if let Some(count) = self.count(RATE) {
            tracing::warn!(client_id, count, "{OVER_THEIR_RATE}");
        }
    }

    /// A device takes its client id from another one again and again.
    pub(super) fn fight(&self, client_id: &str, addr: RemoteAddr) {
        if let Some(count) = self.count(FIGHT) {
            tracing::warn!(client_id, remote_addr = %addr, count, "{FIGHTS}");
        }
    }

    /// A device is read no further, since all uplinks together have no more room.
    pub(super) fn room(&self, client_id: &str) {
        if let Some(count) = self.count(ROOM) {
            tracing::warn!(client_id, count, "{NO_ROOM}");
        }
    }

    /// A page of another origin is refused.
    pub(super) fn origin(&self, origin: &str, addr: RemoteAddr) {
        if let Some(count) = self.count(ORIGIN) {
            tracing::warn!(remote_addr = %addr, origin, count, "{OTHER_ORIGINS}");
        }
    }

    fn count(&self, reason: &str) -> Option<u64> {
        self.0.lock().count(reason.to_owned(), Instant::now())
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        let rest = self.0.lock().rest(Instant::now());
        rest.iter().for_each(|(reason, count)| tell(reason, *count));
    }
}

/// As many more were turned away since the last line.
fn tell(reason: &str, count: u64) {
    match reason {
        RATE => tracing::warn!(count, "{OVER_THEIR_RATE}"),
        FIGHT => tracing::warn!(count, "{FIGHTS}"),
        ROOM => tracing::warn!(count, "{NO_ROOM}"),
        ORIGIN => tracing::warn!(count, "{OTHER_ORIGINS}"),
        _ => tracing::warn!(reason, count, "{TURNED_AWAY}"),
    }
}

const RATE: &str = "rate";
const FIGHT: &str = "fight";
const ROOM: &str = "room";
const ORIGIN: &str = "origin";
const TURNED_AWAY: &str = "A limit turns devices away; FASTSOCK_LIMIT_* sets it";
const OVER_THEIR_RATE: &str = "Devices are over their rate and read later; FASTSOCK_LIMIT_UPLINKS and FASTSOCK_LIMIT_UPLINK_BYTES set it";
const FIGHTS: &str = "Devices are turned away with 4429, since each takes the place of the last; two have the same client id";
const NO_ROOM: &str = "Devices are read no further, since all uplinks that wait have no more room; FASTSOCK_UPLINK_TOTAL_BYTES sets it, with a durable spool \
    FASTSOCK_SPOOL_MAX_BYTES and FASTSOCK_SPOOL_MAX_MESSAGES";
const OTHER_ORIGINS: &str =
    "Pages of this origin are refused; FASTSOCK_LISTEN_ORIGINS names those that may connect";
