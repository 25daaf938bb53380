//! The port to what carries downlinks between processes, and what it delivers into.

pub(crate) mod embedded;
pub(crate) mod lost;
#[cfg(feature = "redis")]
pub(crate) mod redis;

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::time::Instant;

use self::lost::TellLost;
use crate::{
    calls::{Call, CallEnd, PendingCall},
    error::Result,
    groups::Groups,
    node::{Node, NodeId},
    tasks::BoxFuture,
    types::{ClientId, CloseReason, Payload, Sent, SessionId},
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

    /// How its links are; `None` when there is nothing to link to.
    fn health(&self) -> Option<LinkHealth> {
        None
    }

    /// Whether there are other gateways, to which a device may have gone meanwhile.
    fn has_company(&self) -> bool {
        false
    }

    /// A session has taken its seat; its 101 is not written yet. Claims the client id among all gateways. Resolves once the claim is
    /// answered and downlinks PUBLISHed from now on arrive, or once waiting for that would hold the device up for nothing (the link is
    /// down, or late). `is_takeover`: it replaced another session of this gateway. Whatever the answer, [`Broker::unseated`] is to
    /// follow when the seat is empty again, also while this is still waited for.
    fn seated<'a>(
        &'a self,
        client_id: &'a ClientId,
        session_id: SessionId,
        is_takeover: bool,
    ) -> BoxFuture<'a, Claimed>;

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

    /// Sends a message to all members of a group, or to everyone, on all gateways and this one too. Returns how many gateways heard
    /// it; `None` when there is nobody but this one, which is not told.
    fn publish_to(&self, audience: Audience, payload: Bytes) -> BoxFuture<'_, Result<Option<u64>>> {
        let _ = (audience, payload);
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Has the gateway that has a device put it into a group, or take it out. `false` when no other gateway has it.
    fn change_group_elsewhere<'a>(
        &'a self,
        client_id: &'a ClientId,
        name: &'a str,
        joins: bool,
    ) -> BoxFuture<'a, Result<bool>> {
        let _ = (client_id, name, joins);
        Box::pin(std::future::ready(Ok(false)))
    }

    /// Makes a call of a device that is not seated here. The caller holds a place among the calls.
    fn call(&self, client_id: ClientId, call: Call) -> BoxFuture<'_, Result<Payload, CallEnd>>;

    /// Name of this bridge among the gateways that share its broker.
    fn node(&self) -> &NodeId;

    /// Milliseconds since 1970, by the clock that all gateways of this broker share as well as this one knows it.
    fn now_ms(&self) -> u64;

    /// For each id the epoch of its seat at another gateway, if one has it. `None` when that cannot be known within its time.
    fn elsewhere<'a>(
        &'a self,
        client_ids: &'a [ClientId],
    ) -> BoxFuture<'a, Option<Vec<Option<u64>>>>;

    /// Hears nothing any more: what was published before this resolves has been delivered, and whoever publishes later is told that
    /// nobody heard it. Takes at most [`HUSH_WITHIN`]. [`Broker::stop`] comes after it.
    fn hush(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// All gateways that share it, this one as it last told of itself.
    fn nodes(&self) -> BoxFuture<'_, Result<Vec<Node>>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// For each id where it is connected, if that is another gateway.
    fn find<'a>(&'a self, client_ids: &'a [ClientId]) -> BoxFuture<'a, Result<Vec<Option<Found>>>> {
        Box::pin(std::future::ready(Ok(vec![None; client_ids.len()])))
    }

    /// What people call these nodes; empty where that is not known.
    fn names<'a>(&'a self, nodes: &'a [String]) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(std::future::ready(Ok(vec![String::new(); nodes.len()])))
    }

    /// Has someone tell of devices whose gateway died, from now on; set once.
    fn tell_lost(&self, teller: Weak<dyn TellLost>) {
        let _ = teller;
    }

    /// Asks the gateway that has a device to close this session of it.
    fn kick<'a>(
        &'a self,
        client_id: &'a ClientId,
        found: &'a Found,
        reason: &'a CloseReason,
    ) -> BoxFuture<'a, Result<()>> {
        let _ = (client_id, found, reason);
        Box::pin(std::future::ready(Ok(())))
    }

    /// Some devices of all gateways whose name begins so, about `limit`, from where the last page ended; `None` when there are no
    /// other gateways to know of.
    #[cfg_attr(not(feature = "admin"), allow(dead_code, reason = "for the admin API"))]
    fn roster<'a>(
        &'a self,
        prefix: &'a str,
        after: &'a str,
        limit: usize,
    ) -> BoxFuture<'a, Result<Option<Roster>>> {
        let _ = (prefix, after, limit);
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Writes what is still pending (the presence of the sessions that just ended, this node's lease) and ends all
    /// links and tasks, not later than `deadline`. Returns how many presence changes could not be written.
    fn stop(&self, deadline: Instant) -> BoxFuture<'_, u64>;
}

/// Whom a message is for that is for many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    Group(Box<str>),
    Everyone,
}

/// Where a device is connected, by what Redis has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Id of the gateway. Empty when that is not known: it writes presence plainly.
    pub(crate) node: String,
    pub(crate) session_id: SessionId,
    pub(crate) epoch: u64,
    /// Its last sign, in unix milliseconds.
    pub(crate) seen_ms: u64,
}

/// A page of the devices of all gateways, in no order.
#[derive(Debug, Default)]
#[cfg_attr(not(feature = "admin"), allow(dead_code, reason = "for the admin API"))]
pub(crate) struct Roster {
    pub(crate) devices: Vec<(ClientId, Found)>,
    /// Where the next page begins; `None`: this was the last.
    pub(crate) next: Option<String>,
}

/// What a gateway tells the others of itself.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "nobody else is there to be told")
)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    pub(crate) is_draining: bool,
}

/// What came of claiming a client id among all gateways.
#[cfg_attr(
    not(feature = "redis"),
    expect(dead_code, reason = "alone, a gateway always wins")
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claimed {
    /// It is this session's, from this epoch on: higher than that of every session of the id before, as far as is known.
    Won(u64),
    /// The policy is `reject`, and another gateway has the id.
    Taken,
    /// The id changed hands more than [`TAKEOVERS_MAX`] times in [`TAKEOVER_SPAN`].
    TooMany,
}

/// Takeovers of one client id beyond which a new session of it is turned away.
pub(crate) const TAKEOVERS_MAX: u32 = 100;
/// Takeovers that begin later are counted anew.
pub(crate) const TAKEOVER_SPAN: Duration = Duration::from_secs(10);

/// The epoch of a session when nobody else is asked for it: the time in milliseconds, but higher than the one given last.
pub(crate) fn next_epoch(last: &AtomicU64, now_ms: u64) -> u64 {
    let next = |last: u64| now_ms.max(last + 1);
    let before = last.fetch_update(Relaxed, Relaxed, |last| Some(next(last)));
    next(before.unwrap_or_default())
}

/// How long something waits until other processes can find its device.
pub(crate) const ANNOUNCED_WITHIN: Duration = Duration::from_secs(1);

/// How long a stop waits until nothing is heard any more.
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "only Redis is heard")
)]
pub(crate) const HUSH_WITHIN: Duration = Duration::from_millis(500);

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

/// How the links of a broker are.
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "only Redis has links")
)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkHealth {
    /// The one that publishes and writes.
    pub(crate) is_cmd_up: bool,
    /// The one that brings downlinks.
    pub(crate) is_sub_up: bool,
    /// Redis refuses something that devices rely on.
    pub(crate) is_refusing: bool,
    /// How long ago the one that brings downlinks was known to hear.
    pub(crate) heard_ago: Duration,
}

/// What a broker needs of the bridge: the registry of who is seated here, and someone to tell.
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "only Redis brings downlinks")
)]
pub(crate) trait Deliver: Send + Sync {
    /// Puts a downlink into the outbox of a device; `false` when it is not seated here. Never blocks.
    fn deliver(&self, client_id: &str, payload: Bytes) -> bool;

    /// Puts the message of a call into the outbox of a device, and its matcher before it into the seat. Never blocks.
    fn call(&self, client_id: &str, call: Call) -> Result<PendingCall, CallEnd>;

    /// Whether a device has a seat here.
    fn is_seated(&self, client_id: &str) -> bool;

    /// Everyone who is seated here, with the unix milliseconds of their last sign.
    fn everyone(&self) -> Vec<Seated>;

    /// What other gateways are told of this one.
    fn load(&self) -> Load;

    /// Another gateway was asked to close the session of a device that is here; if it is still this one.
    fn kicked_elsewhere(&self, client_id: &str, session_id: SessionId, reason: CloseReason);

    /// Another gateway seated this id after us: our session, if it is still this one, ends as replaced.
    fn replaced_elsewhere(&self, client_id: &str, session_id: SessionId);

    /// Who is in which group here; `None` when there are no groups.
    fn groups(&self) -> Option<Arc<Groups>> {
        None
    }

    /// Puts a message into the outboxes of all who are in a group here. Never blocks.
    fn deliver_to_group(&self, name: &str, payload: Bytes) {
        let _ = (name, payload);
    }

    /// The same for everyone here.
    fn deliver_to_all(&self, payload: Bytes) {
        let _ = payload;
    }

    /// Puts a device that may be seated here into a group, or takes it out.
    fn change_group(&self, client_id: &str, name: &str, joins: bool) {
        let _ = (client_id, name, joins);
    }

    /// The same by a gateway that takes what waits for the device: returns that.
    fn pass_on(&self, client_id: &str, session_id: SessionId) -> Vec<Payload> {
        self.replaced_elsewhere(client_id, session_id);
        Vec::new()
    }

    /// What waited for a device at the gateway that had it before: it goes ahead of all else. `false` when our session is not there
    /// any more.
    fn passed_on(&self, client_id: &str, session_id: SessionId, payloads: Vec<Payload>) -> bool {
        let _ = (client_id, session_id, payloads);
        false
    }

    /// There is something new in the mailbox of a device, which may be seated here. Never blocks.
    fn bell(&self, client_id: &str);

    /// There may be something new in any mailbox: bells were not heard for a while.
    fn bells_missed(&self);

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
