//! The items of one key, in order.

use std::{collections::VecDeque, time::SystemTime};

use tokio::time::Instant;

use super::item::Item;
use crate::{
    forwarder::{Outcome, verdict::Failures},
    pure::receipts::Pledge,
    types::Ticket,
};

/// Items and what they count against the limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

pub(super) struct Lane<I> {
    /// In memory: with a durable spool the oldest of the lane, and those not committed yet.
    pub(super) slots: VecDeque<Slot<I>>,
    pub(super) bytes: usize,
    /// Undecided, or on their way into the spool: its sessions read no further.
    pub(super) unsettled: usize,
    /// In the spool alone; all of them behind the committed ones in memory.
    pub(super) stored: Amount,
    /// What it took past its limit of sessions that ended.
    pub(super) surplus_bytes: usize,
    /// What was asked of the spool and is not here yet; 0 when nothing was.
    pub(super) loading_bytes: usize,
    /// It waits for memory to read on in the spool.
    pub(super) is_starving: bool,
    /// The spool does not let it deliver for now.
    pub(super) is_held_up: bool,
    /// It is in the turns, and stays for its turn when it is empty meanwhile.
    pub(super) has_turn: bool,
}

/// One item in its lane.
pub(super) struct Slot<I> {
    /// Counts up over all lanes, so that slots of a lane are sorted by it.
    pub(super) number: u64,
    pub(super) item: I,
    pub(super) stage: Stage,
    pub(super) taken_at: Instant,
    pub(super) attempts: u32,
    pub(super) failures: Failures,
    /// Its last failed attempt. Kept for dead letters only.
    pub(super) last_failure: Option<Box<LastFailure>>,
    /// What its device waits for, until it is taken.
    pub(super) pledge: Option<Pledge>,
}

/// The last failed attempt to deliver an item, and when the first one was.
pub(super) struct LastFailure {
    pub(super) first_at: SystemTime,
    pub(super) at: SystemTime,
    pub(super) outcome: Outcome,
}

/// How far an item has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// A hook has not answered yet.
    Undecided(Ticket),
    /// The spool does not have it yet.
    Uncommitted,
    /// Waits for its lane's turn, or for those before it.
    Ready,
    /// With a worker.
    InFlight,
    /// With a worker, and not this bridge's to try again.
    Withdrawn,
    /// Waits for the time of its next attempt.
    BackingOff,
}

impl<I> Lane<I> {
    pub(super) fn index(&self, number: u64) -> Option<usize> {
        self.slots
            .binary_search_by_key(&number, |slot| slot.number)
            .ok()
    }

    pub(super) fn slot(&mut self, number: u64) -> Option<&mut Slot<I>> {
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
        let may_go = |slot: &&Slot<I>| matches!(slot.stage, Stage::Ready | Stage::BackingOff);
        self.slots.iter().find(may_go).map(|slot| slot.number)
    }
}

impl<I> Default for Lane<I> {
    fn default() -> Self {
        Self {
            slots: VecDeque::new(),
            bytes: 0,
            unsettled: 0,
            stored: Amount::default(),
            surplus_bytes: 0,
            loading_bytes: 0,
            is_starving: false,
            is_held_up: false,
            has_turn: false,
        }
    }
}

impl<I> Slot<I> {
    pub(super) fn new(number: u64, item: I, stage: Stage, taken_at: Instant) -> Self {
        Self {
            number,
            item,
            stage,
            taken_at,
            attempts: 0,
            failures: Failures::default(),
            last_failure: None,
            pledge: None,
        }
    }

    /// It is taken: its device may know.
    pub(super) fn confirm(&mut self) {
        if let Some(pledge) = self.pledge.take() {
            pledge.taken();
        }
    }

    /// It is decided, and a durable spool has it.
    pub(super) fn is_settled(&self) -> bool {
        !matches!(self.stage, Stage::Undecided(_) | Stage::Uncommitted)
    }
}

impl Amount {
    pub(super) fn add(&mut self, item: &impl Item) {
        self.messages += 1;
        self.bytes += item.bytes();
    }

    pub(super) fn take(&mut self, item: &impl Item) {
        self.messages -= 1;
        self.bytes -= item.bytes();
    }
}
