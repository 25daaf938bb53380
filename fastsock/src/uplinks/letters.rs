//! What was given up: into the durable spool, or into a small copy in memory where there is none.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;
use uuid::Uuid;

use super::{
    GivenUp, Item, Lanes, State,
    lane::{LastFailure, Slot},
};
use crate::{
    error::Result,
    forwarder::Outcome,
    spool::{Place, Spool, memory::Letters},
    types::{DeadLetter, LostReason},
};

impl Lanes {
    /// What keeps uplinks beyond this process, if anything does.
    pub(crate) fn spool(&self) -> Option<&Arc<dyn Spool>> {
        self.spool.as_ref()
    }

    /// Dead letters in the order of their ids, which is that of receipt: at most `limit` after `after`.
    ///
    /// # Errors
    /// Those of the spool.
    pub(crate) async fn dead_letters(
        &self,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>> {
        match &self.spool {
            Some(spool) => spool.dead_letters(after, limit).await,
            None => Ok(self.letters(|letters| letters.list(after, limit))),
        }
    }

    /// One dead letter.
    ///
    /// # Errors
    /// Those of the spool.
    pub(crate) async fn dead_letter(&self, id: Uuid) -> Result<Option<DeadLetter>> {
        match &self.spool {
            Some(spool) => spool.dead_letter(id).await,
            None => Ok(self.letters(|letters| letters.find(id))),
        }
    }

    /// Makes a dead letter an uplink again, behind all others of its device. `false`: there is no such letter.
    ///
    /// # Errors
    /// Those of the spool.
    pub(crate) async fn replay_letter(&self, id: Uuid) -> Result<bool> {
        if let Some(spool) = &self.spool {
            return spool.replay(id).await;
        }
        let mut was_there = false;
        self.change(|state| {
            let letter = state.letters.as_mut().and_then(|letters| letters.take(id));
            let Some(DeadLetter { uplink, .. }) = letter else {
                return;
            };
            was_there = true;
            state.books.recovered += 1;
            let client_id = uplink.client_id.clone();
            self.append(state, uplink, None, None, Instant::now());
            self.promote(state, &client_id);
        });
        Ok(was_there)
    }

    /// Drops a dead letter for good. `false`: there is no such letter.
    ///
    /// # Errors
    /// Those of the spool.
    pub(crate) async fn drop_letter(&self, id: Uuid) -> Result<bool> {
        match &self.spool {
            Some(spool) => spool.drop_letter(id).await,
            None => Ok(self.letters(|letters| letters.drop_letter(id))),
        }
    }

    fn letters<T: Default>(&self, ask: impl FnOnce(&mut Letters) -> T) -> T {
        let mut state = self.state.lock();
        let Some(letters) = &mut state.letters else {
            return T::default();
        };
        letters.expire(SystemTime::now());
        ask(letters)
    }
}

impl<I: Item> Lanes<I> {
    /// Whether anyone may look at what is given up.
    pub(super) fn keeps_letters(&self, state: &State<I>) -> bool {
        self.spool.is_some() || state.letters.is_some()
    }

    /// Keeps what is left of a message that is lost: a dead letter when the backend or time gave it up; one that made room for
    /// others would only take that room again.
    pub(super) fn give_up(
        &self,
        state: &mut State<I>,
        slot: &Slot<I>,
        reason: LostReason,
        outcome: Option<&Outcome>,
    ) {
        let is_letter = matches!(
            reason,
            LostReason::Rejected | LostReason::Poison | LostReason::TooOld
        );
        match (&self.spool, &mut state.letters) {
            (Some(_), _) if !slot.is_settled() => {}
            (Some(spool), _) if is_letter => match self.letter(slot, reason, outcome) {
                Some(letter) => spool.bury(slot.number, letter),
                None => spool.remove(Place::new(slot.item.key(), slot.number)),
            },
            (Some(spool), _) => spool.remove(Place::new(slot.item.key(), slot.number)),
            (None, Some(letters)) if is_letter => {
                if let Some(letter) = self.letter(slot, reason, outcome) {
                    letters.bury(letter);
                }
            }
            (None, _) => {}
        }
    }

    fn letter(
        &self,
        slot: &Slot<I>,
        reason: LostReason,
        outcome: Option<&Outcome>,
    ) -> Option<DeadLetter> {
        let failure = slot.last_failure.as_deref();
        let last = outcome.or(failure.map(|failure| &failure.outcome));
        let way = &self.ways[self.signpost.way_of(&slot.item)];
        let headers = match &way.forward {
            Some(forward) if slot.attempts > 0 => forward.headers(&slot.item, slot.attempts),
            _ => Vec::new(),
        };
        let given_up = GivenUp {
            reason,
            status: last.and_then(Outcome::status),
            error: last.map_or_else(|| reason.to_string(), ToString::to_string),
            attempts: slot.attempts,
            first_attempt_at: failure.map(|failure| failure.first_at),
            last_attempt_at: failure.map(|failure| failure.at),
            headers,
        };
        self.observer.dead_letter(&slot.item, given_up)
    }
}

impl<I> Slot<I> {
    /// Remembers a failed attempt that took so long, for the dead letter the item may become.
    pub(super) fn note(&mut self, outcome: &Outcome, took: Duration) {
        let at = SystemTime::now();
        let first_at = match &self.last_failure {
            Some(failure) => failure.first_at,
            None => at - took,
        };
        self.last_failure = Some(Box::new(LastFailure {
            first_at,
            at,
            outcome: outcome.clone(),
        }));
    }
}
