//! What the spool reports, and what lanes do about it.

use std::time::SystemTime;

use tokio::time::Instant;

use super::{Item, Lanes, Mode, State};
use crate::{
    spool::{Backlog, Place, Record, Settle},
    types::ClientId,
};

impl<I: Item> Settle<I> for Lanes<I> {
    fn reserve(&self, count: u64) -> u64 {
        self.state.lock().queue.reserve(count)
    }

    fn backlog(&self, backlog: Vec<Backlog>, next_number: u64) {
        self.change(|state| {
            state.queue.number_from(next_number);
            for found in backlog {
                state.queue.found(&found);
                state.books.recovered += found.messages as u64;
                self.promote(state, &found.client_id);
            }
            self.note_fullness(state);
        });
    }

    fn committed(&self, places: &[Place]) {
        self.change(|state| {
            for Place { client_id, number } in places {
                if state.queue.committed(client_id, *number) {
                    self.let_read_on(state, client_id);
                }
            }
            self.note_quiet(state);
        });
    }

    fn passed_on(&self, places: &[Place]) {
        self.change(|state| {
            for Place { client_id, number } in places {
                let Some(mut slot) = state.queue.passed_on(client_id, *number) else {
                    continue;
                };
                slot.confirm();
                state.books.passed_on += 1;
                self.let_read_on(state, client_id);
            }
            self.note_quiet(state);
            self.note_empty(state);
        });
    }

    fn withdraw(&self, places: &[Place]) {
        self.change(|state| {
            for Place { client_id, number } in places {
                if state.queue.withdraw(client_id, *number).is_some() {
                    self.note_given_back(state, client_id, *number);
                    self.let_read_on(state, client_id);
                }
            }
            self.note_empty(state);
        });
    }

    fn copies(&self, places: &[Place]) -> Vec<Record<I>> {
        let mut state = self.state.lock();
        let copy = |place: &Place| {
            let number = place.number;
            let uplink = state.queue.copy(&place.client_id, number)?;
            Some(Record { number, uplink })
        };
        places.iter().filter_map(copy).collect()
    }

    fn vanished(&self, count: u64) {
        let mut state = self.state.lock();
        state.books.recovered += count;
        state.books.lost.spool += count;
    }

    fn resume(&self) {
        self.change(|state| {
            for key in state.queue.let_deliver() {
                self.promote(state, &key);
            }
        });
    }

    fn has_room(&self) -> bool {
        self.state.lock().queue.has_room_for_backlog()
    }

    fn recovered(&self, records: Vec<Record<I>>) {
        let now = (Instant::now(), SystemTime::now());
        self.change(|state| {
            for record in records {
                let key = record.uplink.key().clone();
                state.books.recovered += 1;
                state.queue.recovered(record, now);
                self.promote(state, &key);
            }
            self.note_fullness(state);
        });
    }

    fn loaded(&self, client_id: &ClientId, records: Vec<Record<I>>) {
        let now = (Instant::now(), SystemTime::now());
        let mut missing = 0;
        self.change(|state| {
            missing = state.queue.loaded(client_id, records, now);
            if missing == 0 {
                self.promote(state, client_id);
                self.wake(state, client_id);
            }
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
            state.queue.set_spool_failing(is_failing);
            self.note_fullness(state);
            self.wake_all(state);
        });
    }
}

impl<I: Item> Lanes<I> {
    /// Whether the spool takes nothing for now.
    #[cfg_attr(
        not(feature = "admin"),
        allow(dead_code, reason = "only `/readyz` asks")
    )]
    pub(crate) fn is_spool_failing(&self) -> bool {
        self.spool.is_some() && self.state.lock().queue.is_spool_failing()
    }

    /// One change of the state by the spool, and the workers it makes work for.
    pub(super) fn change(&self, change: impl FnOnce(&mut State<I>)) {
        let hires = {
            let mut state = self.state.lock();
            if state.mode == Mode::Closed {
                return; // what it had to say is for the next start
            }
            change(&mut state);
            self.may_hire_all(&mut state)
        };
        if let Some(lanes) = self.me.upgrade() {
            lanes.hire(hires);
        }
    }

    /// A session of this key waited for the spool; and its lane may have more to deliver.
    fn let_read_on(&self, state: &mut State<I>, key: &ClientId) {
        self.promote(state, key);
        self.wake(state, key);
        if let Some(waker) = state.waiters.remove(key) {
            waker.wake(); // no room yet, but for another reason
        }
    }

    /// Leaves a withdrawn item to its new owner.
    pub(super) fn give_back(&self, state: &mut State<I>, key: &ClientId, number: u64) {
        if self.remove(state, key, number).is_some() {
            self.note_given_back(state, key, number);
        }
    }

    fn note_given_back(&self, state: &mut State<I>, key: &ClientId, number: u64) {
        state.books.passed_on += 1;
        if let Some(spool) = &self.spool {
            spool.returned(Place::new(key, number));
        }
    }

    /// Whoever waits in [`Lanes::drained`] looks again.
    pub(super) fn note_quiet(&self, state: &State<I>) {
        let is_quiet = state.in_flight() == 0 || state.queue.uncommitted() == 0;
        if state.mode == Mode::Ending && is_quiet {
            self.emptied.notify_waiters();
        }
    }

    fn note_empty(&self, state: &State<I>) {
        if state.queue.is_empty() {
            self.emptied.notify_waiters();
        }
    }
}
