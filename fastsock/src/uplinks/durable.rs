//! Lanes whose uplinks a spool keeps as well: taken once committed, and read back as a lane empties.
//!
//! In memory a lane has its oldest committed messages (its window) and those on their way into the spool; what is between
//! them is in the spool alone. So a backlog may be larger than memory, and a lane that waits for memory costs a few words.

use std::{sync::Arc, time::SystemTime};

use tokio::time::Instant;

use super::{
    Lanes, State, keep,
    lane::{Lane, Phase, Slot},
};
use crate::{
    spool::{Backlog, Place, Record, Settle, Spool},
    types::ClientId,
};

impl Settle for Lanes {
    fn reserve(&self, count: u64) -> u64 {
        let mut state = self.state.lock();
        let first = state.next_number;
        state.next_number += count;
        first
    }

    fn backlog(&self, backlog: Vec<Backlog>, next_number: u64) {
        self.change(|state| {
            state.next_number = state.next_number.max(next_number);
            for found in backlog {
                let lane = state.lanes.entry(found.client_id.clone()).or_default();
                for stored in [&mut lane.stored, &mut state.stored, &mut state.held] {
                    stored.messages += found.messages;
                    stored.bytes += found.bytes;
                }
                state.books.recovered += found.messages as u64;
                self.promote(state, &found.client_id);
            }
            self.note_fullness(state);
        });
    }

    fn committed(&self, places: &[Place]) {
        self.change(|state| {
            for place in places {
                let Some(lane) = state.lanes.get_mut(&place.client_id) else {
                    continue;
                };
                let Some(index) = lane.uncommitted(place.number) else {
                    continue;
                };
                lane.slots[index].phase = Phase::Ready;
                lane.slots[index].keep_word();
                lane.unsettled -= 1;
                state.uncommitted -= 1;
                if self.may_evict(state, &place.client_id, index) {
                    evict(state, &place.client_id, index);
                } else if let Some(lane) = state.lanes.get_mut(&place.client_id) {
                    self.make_ready(lane, place.number);
                }
                self.let_read_on(state, &place.client_id);
            }
            self.note_quiet(state);
        });
    }

    fn passed_on(&self, places: &[Place]) {
        self.change(|state| {
            for Place { client_id, number } in places {
                let Some(lane) = state.lanes.get_mut(client_id) else {
                    continue;
                };
                if lane.uncommitted(*number).is_none() {
                    continue;
                }
                lane.unsettled -= 1;
                state.uncommitted -= 1;
                keep(self.remove(state, client_id, *number));
                state.books.passed_on += 1;
                self.let_read_on(state, client_id);
            }
            self.note_quiet(state);
        });
    }

    fn withdraw(&self, places: &[Place]) {
        self.change(|state| {
            for Place { client_id, number } in places {
                let lane = state.lanes.get_mut(client_id);
                let Some(slot) = lane.and_then(|lane| lane.slot(*number)) else {
                    continue;
                };
                if slot.phase == Phase::InFlight {
                    slot.phase = Phase::Withdrawn;
                } else {
                    self.give_back(state, client_id, *number);
                    self.let_read_on(state, client_id);
                }
            }
        });
    }

    fn resume(&self) {
        self.change(|state| {
            for client_id in std::mem::take(&mut state.held_up) {
                if let Some(lane) = state.lanes.get_mut(&client_id) {
                    lane.is_held_up = false;
                }
                self.promote(state, &client_id);
            }
        });
    }

    fn has_room(&self) -> bool {
        // The other half is for what sessions say: a backlog must not keep them from saying it.
        self.state.lock().memory_bytes() < self.limits.total_bytes / 2
    }

    fn recovered(&self, records: Vec<Record>) {
        let now = (Instant::now(), SystemTime::now());
        self.change(|state| {
            for record in records {
                let client_id = record.uplink.client_id.clone();
                state.books.recovered += 1;
                state.held.add(&record.uplink);
                let lane = state.lanes.entry(client_id.clone()).or_default();
                let is_behind_others = lane.stored.messages > 0;
                let number = record.number;
                let index = lane.insert(record, now);
                if is_behind_others {
                    evict(state, &client_id, index);
                } else {
                    self.make_ready(lane, number);
                }
                self.promote(state, &client_id);
            }
            self.note_fullness(state);
        });
    }

    fn loaded(&self, client_id: &ClientId, records: Vec<Record>) {
        let now = (Instant::now(), SystemTime::now());
        let mut missing = 0;
        self.change(|state| {
            let Some(lane) = state.lanes.get_mut(client_id) else {
                return;
            };
            state.loading_bytes -= std::mem::take(&mut lane.loading_bytes);
            if records.is_empty() && lane.stored.messages > 0 {
                missing = lane.stored.messages;
                return;
            }
            for record in records {
                if lane.index(record.number).is_some() {
                    continue; // it stayed in memory when it was committed
                }
                lane.stored.take(&record.uplink);
                state.stored.take(&record.uplink);
                let number = record.number;
                lane.insert(record, now);
                self.make_ready(lane, number);
            }
            self.promote(state, client_id);
            self.wake(state, client_id);
        });
        if missing > 0 {
            tracing::error!(%client_id, messages = missing, "the spool has lost messages; the next start looks for them again");
        }
    }

    fn buried(&self, kept: u64, dropped: u64) {
        {
            let mut state = self.state.lock();
            state.books.dead_letters = kept;
            state.books.dead_letters_dropped += dropped;
        }
        if dropped > 0 {
            tracing::debug!(
                count = dropped,
                kept,
                "Dropped dead letters: by hand, or to stay within their limits"
            );
        }
    }

    fn failing(&self, is_failing: bool) {
        self.change(|state| {
            state.is_spool_failing = is_failing;
            self.note_fullness(state);
            self.wake_all(state);
        });
    }
}

impl Lanes {
    /// What keeps uplinks beyond this process, if anything does.
    pub(crate) fn spool(&self) -> Option<&Arc<dyn Spool>> {
        self.spool.as_ref()
    }

    /// Whether the spool takes nothing for now.
    #[cfg_attr(
        not(feature = "admin"),
        allow(dead_code, reason = "only `/readyz` asks")
    )]
    pub(crate) fn is_spool_failing(&self) -> bool {
        self.spool.is_some() && self.state.lock().is_spool_failing
    }

    /// One change of the state by the spool, and the workers it makes work for.
    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        let mut hires = 0;
        {
            let mut state = self.state.lock();
            if state.is_closed {
                return; // what it had to say is for the next start
            }
            change(&mut state);
            while hires < state.turns.len() && self.may_hire(&mut state) {
                hires += 1;
            }
        }
        if let Some(lanes) = self.me.upgrade() {
            for _ in 0..hires {
                lanes.hire(true);
            }
        }
    }

    /// A session of this id waited for the spool; and its lane may have more to send.
    fn let_read_on(&self, state: &mut State, client_id: &ClientId) {
        self.promote(state, client_id);
        self.wake(state, client_id);
        if let Some(waker) = state.waiters.remove(client_id) {
            waker.wake(); // no room yet, but for another reason
        }
    }

    /// Leaves a withdrawn message to its new owner.
    pub(super) fn give_back(&self, state: &mut State, client_id: &ClientId, number: u64) {
        if self.remove(state, client_id, number).is_some() {
            state.books.passed_on += 1;
            if let Some(spool) = &self.spool {
                spool.returned(Place::new(client_id, number));
            }
        }
    }

    /// The first turn is of a lane that may not deliver for now. It has no turn until that changes.
    pub(super) fn hold_up(&self, state: &mut State, client_id: ClientId) {
        self.take_turn(state);
        if let Some(lane) = state.lanes.get_mut(&client_id) {
            lane.is_held_up = true;
            state.held_up.push(client_id);
        }
    }

    /// Whether a message just committed need not stay in memory: it is behind others that do not, or there is no room.
    /// Only ever the last committed one in memory goes: what is in the spool alone is behind what is not.
    fn may_evict(&self, state: &State, client_id: &ClientId, index: usize) -> bool {
        let Some(lane) = state.lanes.get(client_id) else {
            return false;
        };
        let is_last = lane.slots.range(index + 1..).all(|s| !s.is_settled());
        let has_no_room =
            lane.bytes > self.limits.window_bytes && index > 0 || !self.has_memory(state);
        is_last && (lane.stored.messages > 0 || lane.loading_bytes > 0 || has_no_room)
    }

    /// Whether windows may grow. The last quarter of memory is for what is on its way into the spool; else a backend that is
    /// down for long would fill memory with windows, and no session could read on although the spool has room.
    fn has_memory(&self, state: &State) -> bool {
        state.memory_bytes() <= self.limits.total_bytes / 4 * 3
    }

    /// Reads on in the spool once half of a lane's window is empty, or waits for its turn to have memory.
    pub(super) fn refill(&self, state: &mut State, client_id: &ClientId) {
        let has_memory = self.has_memory(state);
        let (Some(spool), Some(lane)) = (&self.spool, state.lanes.get_mut(client_id)) else {
            return;
        };
        let is_enough = lane.bytes > self.limits.window_bytes / 2;
        if lane.stored.messages == 0 || lane.loading_bytes > 0 || is_enough {
            return;
        }
        if !has_memory {
            if !std::mem::replace(&mut lane.is_starving, true) {
                state.starving.push_back(client_id.clone());
            }
            return;
        }
        let room = self.limits.window_bytes - lane.bytes;
        lane.loading_bytes = room.min(lane.stored.bytes);
        state.loading_bytes += lane.loading_bytes;
        let newest = lane.slots.iter().rfind(|slot| slot.is_settled());
        spool.load(
            client_id.clone(),
            newest.map(|slot| slot.number),
            lane.loading_bytes,
        );
    }

    /// Lets lanes read on that waited for memory.
    pub(super) fn feed(&self, state: &mut State) {
        while self.has_memory(state)
            && let Some(client_id) = state.starving.pop_front()
        {
            if let Some(lane) = state.lanes.get_mut(&client_id) {
                lane.is_starving = false;
            }
            self.refill(state, &client_id);
        }
    }

    /// Whoever waits in [`Lanes::drained`] looks again.
    pub(super) fn note_quiet(&self, state: &State) {
        if state.is_ending && (state.in_flight == 0 || state.uncommitted == 0) {
            self.emptied.notify_waiters();
        }
    }
}

impl Lane {
    /// Marks a message as on its way into the spool; what the spool is to write.
    pub(super) fn commit(&mut self, number: u64, uncommitted: &mut usize) -> Record {
        self.unsettled += 1;
        *uncommitted += 1;
        let slot = self
            .slot(number)
            .expect("a message that is settled now is in its lane");
        slot.phase = Phase::Uncommitted;
        Record {
            number,
            uplink: slot.uplink.clone(),
        }
    }

    /// The index of a message that is on its way into the spool.
    fn uncommitted(&self, number: u64) -> Option<usize> {
        let index = self.index(number)?;
        (self.slots[index].phase == Phase::Uncommitted).then_some(index)
    }

    /// Puts a committed message into its place; the age limit counts from when it was read, or replayed. Returns its index.
    fn insert(&mut self, record: Record, (now, today): (Instant, SystemTime)) -> usize {
        let Record { number, uplink } = record;
        let since = uplink.replayed_at.unwrap_or(uplink.received_at);
        let age = today.duration_since(since).unwrap_or_default();
        let taken_at = now.checked_sub(age).unwrap_or(now);
        let index = self.slots.partition_point(|slot| slot.number < number);
        self.bytes += uplink.payload.cost();
        self.slots
            .insert(index, Slot::new(number, uplink, Phase::Ready, taken_at));
        index
    }
}

/// Leaves a committed message to the spool alone.
fn evict(state: &mut State, client_id: &ClientId, index: usize) {
    let Some(lane) = state.lanes.get_mut(client_id) else {
        return;
    };
    if let Some(slot) = lane.slots.remove(index) {
        lane.bytes -= slot.uplink.payload.cost();
        lane.stored.add(&slot.uplink);
        state.stored.add(&slot.uplink);
    }
}
