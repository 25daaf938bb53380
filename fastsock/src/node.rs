//! A gateway among those that share a Redis or a backend: its id, its name, and what it tells of itself.

use std::{
    ops::Deref,
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer};
use uuid::Uuid;

/// Which gateway it is. Made once for each bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeId {
    /// Random, so that a restarted gateway is another.
    id: String,
    /// What people call it. Two may have the same.
    name: String,
}

/// One gateway among those that share a Redis. Times are milliseconds since 1970 in JSON, durations milliseconds.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Node {
    /// Its random id, which it has until it ends.
    #[serde(rename = "node")]
    pub id: String,
    /// What people call it (`FASTSOCK_NODE_NAME`). Empty when it is not known: the gateway is older, or gone.
    pub name: String,
    /// When it started; `None` when it is not known.
    #[serde(rename = "since_ms", serialize_with = "maybe_unix_ms")]
    pub since: Option<SystemTime>,
    /// How long ago it renewed its lease, as far as this gateway knows the clock of Redis. `None` without Redis, and for one that is
    /// gone.
    #[serde(rename = "lease_age_ms", serialize_with = "maybe_ms")]
    pub lease_age: Option<Duration>,
    /// Devices that are connected to it; at most a second old.
    pub connections: u64,
    /// The version that runs there. Empty when it is not known.
    pub version: String,
    /// It takes no new devices: it drains.
    #[serde(rename = "draining")]
    pub is_draining: bool,
    /// Its lease has ended, and another gateway clears up after it.
    #[serde(rename = "gone")]
    pub is_gone: bool,
    /// It is the one that answers.
    #[serde(rename = "this")]
    pub is_this: bool,
}

impl NodeId {
    pub(crate) fn random() -> Self {
        Self {
            id: Uuid::now_v7().simple().to_string().split_off(16), // what is random of it
            name: String::new(),
        }
    }

    /// The same one, with a name.
    pub(crate) fn named(self, name: String) -> Self {
        Self { name, ..self }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Deref for NodeId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.id
    }
}

/// What a machine calls itself; empty when it does not say.
pub(crate) fn host_name() -> String {
    #[cfg(unix)]
    return rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    #[cfg(not(unix))]
    String::new()
}

fn maybe_unix_ms<S: Serializer>(time: &Option<SystemTime>, to: S) -> Result<S::Ok, S::Error> {
    let ms = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap_or_default().as_millis() as u64
    };
    time.map(ms).serialize(to)
}

fn maybe_ms<S: Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_millis() as u64).serialize(to)
}
