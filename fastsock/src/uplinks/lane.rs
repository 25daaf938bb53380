//! One device's uplinks, in order.

use std::{collections::VecDeque, time::SystemTime};

use tokio::time::Instant;

use crate::{
    forwarder::{Attempt, outcome::Trial},
    pure::receipts::Pledge,
    types::{Ticket, Uplink},
};

/// Messages and what they cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

#[derive(Default)]
pub(super) struct Lane {
    /// In memory: with a durable spool the oldest of the lane, and those not committed yet.
    pub(super) slots: VecDeque<Slot>,
    pub(super) bytes: usize,
    /// Undecided, or on their way into the spool: its sessions read no further.
    pub(super) unsettled: usize,
    /// In the spool alone; all of them behind the committed ones in memory.
    pub(super) stored: Stored,
    /// What it took past its bound of sessions that ended.
    pub(super) surplus_bytes: usize,
    /// What was asked of the spool and is not here yet; 0 when nothing was.
    pub(super) loading_bytes: usize,
    /// It is in `starving`.
    pub(super) is_starving: bool,
    /// It is in `held_up`.
    pub(super) is_held_up: bool,
    /// It is in `turns`, and stays for it when it is empty meanwhile.
    pub(super) has_turn: bool,
}

/// One uplink in its lane.
pub(super) struct Slot {
    /// Counts up over all lanes, so that slots of a lane are sorted by it.
    pub(super) number: u64,
    pub(super) uplink: Uplink,
    pub(super) phase: Phase,
    pub(super) taken_at: Instant,
    pub(super) attempts: u32,
    pub(super) trial: Trial,
    /// What its attempts came to so far. Kept for dead letters only.
    pub(super) trail: Option<Box<Trail>>,
    /// What its device waits for, until it is taken.
    pub(super) pledge: Option<Pledge>,
}

/// What the failed attempts of a message came to.
pub(super) struct Trail {
    pub(super) first_at: SystemTime,
    pub(super) last_at: SystemTime,
    pub(super) last: Attempt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// A hook has not answered yet.
    Undecided(Ticket),
    /// The spool does not have it yet.
    Uncommitted,
    /// Waits for its lane's turn.
    Ready,
    /// With a worker.
    InFlight,
    /// With a worker, and not this bridge's to try again.
    Withdrawn,
    /// Waits in `due` for its next attempt.
    BackingOff,
}

impl Lane {
    pub(super) fn index(&self, number: u64) -> Option<usize> {
        self.slots
            .binary_search_by_key(&number, |slot| slot.number)
            .ok()
    }

    pub(super) fn slot(&mut self, number: u64) -> Option<&mut Slot> {
        let index = self.index(number)?;
        self.slots.get_mut(index)
    }

    /// Nothing in it, and nothing of it elsewhere.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.stored.messages == 0
    }

    pub(super) fn total_bytes(&self) -> usize {
        self.bytes + self.stored.bytes
    }

    /// The oldest that `drop_oldest` may lose. With everything in the spool alone, none: that is read back first.
    pub(super) fn displaceable(&self) -> Option<u64> {
        let may_go = |slot: &&Slot| matches!(slot.phase, Phase::Ready | Phase::BackingOff);
        self.slots.iter().find(may_go).map(|slot| slot.number)
    }
}

impl Slot {
    pub(super) fn new(number: u64, uplink: Uplink, phase: Phase, taken_at: Instant) -> Self {
        Self {
            number,
            uplink,
            phase,
            taken_at,
            attempts: 0,
            trial: Trial::default(),
            trail: None,
            pledge: None,
        }
    }

    /// It is taken: its device may know.
    pub(super) fn keep_word(&mut self) {
        if let Some(pledge) = self.pledge.take() {
            pledge.taken();
        }
    }

    /// It is decided, and a durable spool has it.
    pub(super) fn is_settled(&self) -> bool {
        !matches!(self.phase, Phase::Undecided(_) | Phase::Uncommitted)
    }
}

impl Stored {
    pub(super) fn add(&mut self, uplink: &Uplink) {
        self.messages += 1;
        self.bytes += uplink.payload.cost();
    }

    pub(super) fn take(&mut self, uplink: &Uplink) {
        self.messages -= 1;
        self.bytes -= uplink.payload.cost();
    }
}
