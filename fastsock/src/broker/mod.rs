//! The port to what carries downlinks between processes, and what it delivers into.

pub(crate) mod embedded;
#[cfg(feature = "redis")]
pub(crate) mod redis;

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    error::Result,
    node::NodeId,
    tasks::BoxFuture,
    types::{ClientId, Sent, SessionId},
};

/// Carries downlinks and presence between processes. One per bridge.
pub(crate) trait Broker: Send + Sync {
    /// The word for it in logs and `/readyz`.
    fn name(&self) -> &'static str;

    /// Whether another process could be reached right now.
    #[cfg_attr(
        not(feature = "admin"),
        allow(dead_code, reason = "only `/readyz` asks")
    )]
    fn link(&self) -> Link;

    /// A session has taken its seat; its 101 is not written yet. Resolves once downlinks PUBLISHed from now on
    /// arrive, or once waiting for that would hold the device up for nothing (the link is down, or late).
    fn seated<'a>(&'a self, client_id: &'a ClientId, session_id: SessionId) -> BoxFuture<'a, ()>;

    /// The device's 101 is written, or it said something: its last-seen moves to `seen_ms` (unix milliseconds).
    /// Never blocks; coalesced per device.
    fn seen(&self, client_id: &ClientId, seen_ms: u64);

    /// Resolves once other processes can find the device in the hash, for whoever is about to tell them of it. `None` when that
    /// is so, or not to be waited for: the link is down, or refuses presence. To be waited for [`ANNOUNCED_WITHIN`] at most.
    fn announced(&self, client_id: &ClientId) -> Option<BoxFuture<'static, ()>> {
        let _ = client_id;
        None
    }

    /// The seat of this id is empty now. Not called when a takeover filled it.
    fn unseated(&self, client_id: &ClientId, session_id: SessionId);

    /// Sends to a device that is not seated here: `Elsewhere` or `Offline`.
    fn publish(&self, client_id: ClientId, payload: Bytes) -> BoxFuture<'_, Result<Sent>>;

    /// Name of this bridge among the gateways that share its broker.
    fn node(&self) -> &NodeId;

    /// Milliseconds since 1970, by the clock that all gateways of this broker share as well as this one knows it.
    fn now_ms(&self) -> u64;

    /// For each id whether another gateway has its seat. `false` for all when that cannot be known within its time.
    fn are_elsewhere<'a>(&'a self, client_ids: &'a [ClientId]) -> BoxFuture<'a, Vec<bool>>;

    /// Writes what is still pending (the presence of the sessions that just ended, this node's lease) and ends all
    /// links and tasks, not later than `deadline`. Returns how many presence changes could not be written.
    fn stop(&self, deadline: Instant) -> BoxFuture<'_, u64>;
}

/// How long something waits until other processes can find its device.
pub(crate) const ANNOUNCED_WITHIN: Duration = Duration::from_secs(1);

/// Whether the broker can reach other processes.
#[cfg_attr(
    not(all(feature = "admin", feature = "redis")),
    allow(dead_code, reason = "only `/readyz` asks, and only Redis is ever away")
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// All links are up, or there is nothing to link to.
    Up,
    /// Not configured and never there: this process is on its own, and that is no fault.
    Alone,
    /// Configured, or there before, and away now.
    Down,
}

/// What a broker needs of the bridge: the registry of who is seated here, and someone to tell.
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "only Redis brings downlinks")
)]
pub(crate) trait Deliver: Send + Sync {
    /// Puts a downlink into the outbox of a device; `false` when it is not seated here. Never blocks.
    fn deliver(&self, client_id: &str, payload: Bytes) -> bool;

    /// Whether a device has a seat here.
    fn is_seated(&self, client_id: &str) -> bool;

    /// Everyone who is seated here, with the unix milliseconds of their last sign.
    fn everyone(&self) -> Vec<Seated>;

    /// Another gateway seated this id after us: our session, if it is still this one, ends as replaced.
    fn replaced_elsewhere(&self, client_id: &str, session_id: SessionId);

    /// The link came up or went away. Logged by the broker; this is for hooks and readiness.
    fn link_changed(&self, change: LinkChange);
}

/// One seated device, as a broker restores it.
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "only Redis brings downlinks")
)]
#[derive(Clone, Debug)]
pub(crate) struct Seated {
    pub(crate) client_id: ClientId,
    pub(crate) session_id: SessionId,
    pub(crate) seen_ms: u64,
}

/// What happened to the broker's links.
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "only Redis brings downlinks")
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkChange {
    Up,
    Down,
    /// Up again; what was published between the two times may not have arrived.
    Gap {
        from: SystemTime,
        to: SystemTime,
    },
}
