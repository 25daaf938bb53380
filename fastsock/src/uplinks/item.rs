//! What lanes know of the items they carry, and whom they tell what became of them.

use std::time::{Duration, SystemTime};

use crate::{
    forwarder::Outcome,
    types::{ClientId, DeadLetter, LostReason},
};

/// Something to be delivered: an uplink, or an event.
pub(crate) trait Item: Clone + Send + Sync + 'static {
    /// The lane it is in. Items of one key are delivered in order.
    fn key(&self) -> &ClientId;

    /// What it counts against the limits.
    fn bytes(&self) -> usize;

    /// When it came to be, or was replayed: its age counts from then.
    fn made_at(&self) -> SystemTime;

    /// The name of the route that it goes; `None`: the default one.
    fn route(&self) -> Option<&str> {
        None
    }
}

/// Whom lanes tell what becomes of their items. Called outside of their lock, but for `dead_letter`.
pub(crate) trait Observer<I>: Send + Sync {
    /// An attempt to deliver it took so long and came to this.
    fn attempted(&self, item: &I, outcome: &Outcome, took: Duration) {
        let _ = (item, outcome, took);
    }

    /// The destination has it.
    fn delivered(&self, item: &I);

    /// The attempt of this number failed, and there will be another.
    fn put_off(&self, item: &I, number: u32, attempt: &Outcome, wait: Duration);

    /// It was given up; after an attempt, or for another reason.
    fn lost(&self, item: &I, reason: LostReason, attempt: Option<&Outcome>);

    /// It was to be delivered, and there is no destination.
    fn undeliverable(&self, item: &I);

    /// The destination says that the device no longer exists.
    fn gone(&self, item: &I);

    /// The destination takes nothing; that of the route with this name, which is empty for the default one.
    fn outage(&self, route: &str);

    /// It takes messages again.
    fn recovered(&self, route: &str);

    /// The destination refuses everything.
    fn misconfigured(&self, route: &str, attempt: &Outcome);

    /// What is kept of an item that was given up. `None`: nothing.
    fn dead_letter(&self, item: &I, given_up: GivenUp) -> Option<DeadLetter>;
}

/// Why an item was given up, and what its attempts came to.
pub(crate) struct GivenUp {
    pub(crate) reason: LostReason,
    pub(crate) status: Option<u16>,
    pub(crate) error: String,
    pub(crate) attempts: u32,
    pub(crate) first_attempt_at: Option<SystemTime>,
    pub(crate) last_attempt_at: Option<SystemTime>,
    /// Those of the last attempt.
    pub(crate) headers: Vec<(String, String)>,
}

/// What was decided about an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Deliver,
    Drop,
    /// Nobody has decided: it is lost.
    Fail,
}
