//! The port to where uplinks outlive the process, and what it tells the lanes. Without one the lanes are all there is, and
//! `memory` keeps a small copy of what they give up.
//!
//! The lanes decide what is kept, in which order it goes and when it leaves; a spool only keeps it. Both sides never wait for
//! each other: the lanes hand over and go on, the spool reports when it is done.

#[cfg(feature = "disk")]
pub(crate) mod disk;
pub(crate) mod memory;
#[cfg_attr(
    not(all(feature = "disk", feature = "redis-spool")),
    allow(
        dead_code,
        reason = "each durable spool has its own use for some of it"
    )
)]
pub(crate) mod record;
#[cfg(feature = "redis-spool")]
pub(crate) mod redis;

use std::sync::Weak;

use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    error::Result,
    histogram::Durations,
    tasks::BoxFuture,
    types::{ClientId, DeadLetter, Uplink},
};

/// Keeps uplinks until they are delivered, and what is left of those that were given up. One per bridge.
///
/// Everything handed over takes effect in the order in which it was handed over. What is handed over and not yet done is
/// bounded by the callers: one [`append`](Spool::append) a session, one [`load`](Spool::load) a lane, and one
/// [`remove`](Spool::remove) or [`bury`](Spool::bury) for each uplink that the lanes hold.
pub(crate) trait Spool<I = Uplink>: Send + Sync {
    /// Tells whom to report to, once and first of all. What was found at the start is reported before this returns
    /// ([`Settle::backlog`]), so that no device can say anything before its older messages are in their place.
    fn start(&self, lanes: Weak<dyn Settle<I>>);

    /// Whether other gateways share it: then it passes on what it takes, and brings all there is to deliver here by
    /// [`Settle::recovered`]. What is brought was taken before anything that is still on its way.
    fn is_shared(&self) -> bool {
        false
    }

    /// Takes an uplink over. [`Settle::committed`] or [`Settle::passed_on`] says when it would survive this process;
    /// until then its session reads nothing. Never blocks; called under the lock of the lanes.
    fn append(&self, record: Record<I>);

    /// Forgets a committed uplink: it was delivered, or dropped. May become durable late: a duplicate is allowed, a loss is not.
    /// Never blocks; called under the lock of the lanes.
    fn remove(&self, place: Place);

    /// Forgets a committed uplink that was given up, and keeps it as a dead letter, both in one step.
    /// [`Settle::buried`] says how many there are. Never blocks; called under the lock of the lanes.
    fn bury(&self, number: u64, letter: DeadLetter);

    /// A [withdrawn](Settle::withdraw) uplink was not delivered and will not be, from here: it is for its new owner now.
    /// Never blocks; called under the lock of the lanes.
    fn returned(&self, place: Place) {
        let _ = place;
    }

    /// Whether a POST for this device may begin. If not, [`Settle::resume`] says when to ask again. Never blocks; called under
    /// the lock of the lanes, before each POST.
    fn may_deliver(&self, client_id: &ClientId) -> bool {
        let _ = client_id;
        true
    }

    /// Reads on in a lane: its committed uplinks above `after`, oldest first, until their costs reach `cost` bytes; at
    /// least one, if there is one. [`Settle::loaded`] brings them. One at a time for each lane. Never blocks.
    ///
    /// Only a spool that reports `committed` or `backlog` is asked: one that passes everything on brings it all by itself.
    fn load(&self, client_id: ClientId, after: Option<u64>, cost: usize);

    /// Dead letters in the order of their ids, from the first above `after`; at most `limit`.
    ///
    /// # Errors
    /// `Io` (disk) or `Broker` (Redis) when they cannot be read now.
    fn dead_letters(
        &self,
        after: Option<Uuid>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<DeadLetter>>>;

    /// One dead letter, or `None`.
    ///
    /// # Errors
    /// As [`Spool::dead_letters`].
    fn dead_letter(&self, id: Uuid) -> BoxFuture<'_, Result<Option<DeadLetter>>>;

    /// Makes a dead letter an uplink again, behind all others of its device; it comes back by [`Settle::recovered`].
    /// `false`: there is no such letter.
    ///
    /// # Errors
    /// As [`Spool::dead_letters`]; then it is still a dead letter.
    fn replay(&self, id: Uuid) -> BoxFuture<'_, Result<bool>>;

    /// Drops a dead letter for good. `false`: there is no such letter.
    ///
    /// # Errors
    /// As [`Spool::dead_letters`].
    fn drop_letter(&self, id: Uuid) -> BoxFuture<'_, Result<bool>>;

    /// What it tells of itself.
    fn figures(&self) -> SpoolFigures;

    /// Writes what was handed over and ends all tasks and threads, not later than `deadline`. Nothing is appended any more.
    fn stop(&self, deadline: Instant) -> BoxFuture<'_, ()>;

    /// The same without waiting: the bridge was dropped.
    fn abort(&self);
}

/// What a spool tells of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct SpoolFigures {
    /// What its commits take.
    pub(crate) commits: Durations,
    /// The size of its file, if it has one.
    pub(crate) file_bytes: Option<u64>,
}

/// What a spool tells the lanes. Takes their lock, so never called from within a call of [`Spool`] made under it;
/// calls that belong together in the order of events come from one thread or task.
#[cfg_attr(
    not(all(feature = "disk", feature = "redis-spool")),
    allow(
        dead_code,
        reason = "each durable spool has its own use for some of it"
    )
)]
pub(crate) trait Settle<I = Uplink>: Send + Sync {
    /// `count` numbers in a row for uplinks that the spool brings; the first of them. Greater than all before.
    fn reserve(&self, count: u64) -> u64;

    /// What was found at start, by device, and is to be [loaded](Spool::load) as it is needed. Counts as recovered. New
    /// uplinks are numbered from `next_number`.
    fn backlog(&self, backlog: Vec<Backlog>, next_number: u64);

    /// These would survive the process now; they are delivered from here.
    fn committed(&self, places: &[Place]);

    /// These appends went to a spool shared with others, and whoever delivers them counts them as recovered.
    fn passed_on(&self, places: &[Place]);

    /// These recovered ones are another gateway's to deliver from now on. For each the lanes answer exactly once: at once with
    /// [`Spool::returned`], and it counts as passed on; or, while a POST of it is in flight, when that has ended, with
    /// [`Spool::remove`] or [`Spool::bury`] if it settled the matter, and with `returned` if not. Unknown ones are passed over.
    fn withdraw(&self, places: &[Place]);

    /// Copies of those that the lanes still hold, in the same order: the spool has lost its own.
    fn copies(&self, places: &[Place]) -> Vec<Record<I>>;

    /// The spool has lost so many that nobody holds. They count as recovered, and as lost with the reason `spool`.
    fn vanished(&self, count: u64);

    /// [`Spool::may_deliver`] may have changed its mind.
    fn resume(&self);

    /// Whether there is room for what is brought by `recovered`. If not, a `remove` or `bury` may make some.
    fn has_room(&self) -> bool;

    /// Committed uplinks to deliver from here, each with a number from [`Settle::reserve`], ascending for each device.
    fn recovered(&self, records: Vec<Record<I>>);

    /// The answer to [`Spool::load`].
    fn loaded(&self, client_id: &ClientId, records: Vec<Record<I>>);

    /// How many dead letters there are now, and how many more were dropped: by hand, or to keep within the bounds.
    fn buried(&self, kept: u64, dropped: u64);

    /// Whether appends cannot be committed for now. Then no session reads; the spool tries again by itself, and logs.
    fn failing(&self, is_failing: bool);
}

/// An uplink and its place in the order.
#[cfg_attr(
    not(all(feature = "disk", feature = "redis-spool")),
    allow(
        dead_code,
        reason = "each durable spool has its own use for some of it"
    )
)]
#[derive(Clone, Debug)]
pub(crate) struct Record<I = Uplink> {
    /// Counts up over all lanes of a bridge; recovered ones keep theirs within one spool.
    pub(crate) number: u64,
    pub(crate) uplink: I,
}

#[cfg_attr(
    not(all(feature = "disk", feature = "redis-spool")),
    allow(
        dead_code,
        reason = "each durable spool has its own use for some of it"
    )
)]
impl Record {
    pub(crate) fn place(&self) -> Place {
        Place::new(&self.uplink.client_id, self.number)
    }
}

/// Where a committed uplink is: its lane and its number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) client_id: ClientId,
    pub(crate) number: u64,
}

impl Place {
    pub(crate) fn new(client_id: &ClientId, number: u64) -> Self {
        Self {
            client_id: client_id.clone(),
            number,
        }
    }
}

/// What one device has in the spool at start.
#[cfg_attr(
    not(all(feature = "disk", feature = "redis-spool")),
    allow(
        dead_code,
        reason = "each durable spool has its own use for some of it"
    )
)]
#[derive(Clone, Debug)]
pub(crate) struct Backlog {
    pub(crate) client_id: ClientId,
    pub(crate) messages: usize,
    /// What they cost against the bounds ([`Payload::cost`](crate::types::Payload::cost)).
    pub(crate) bytes: usize,
}
