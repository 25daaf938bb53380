//! What was given up: into the durable spool, or into a small copy in memory where there is none.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Lanes, State,
    lane::{Slot, Trail},
};
use crate::{
    error::Result,
    forwarder::Attempt,
    spool::{Place, memory::Letters},
    types::{DeadLetter, LostReason},
};

impl Lanes {
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

    /// Whether anyone may look at what is given up.
    pub(super) fn keeps_letters(&self, state: &State) -> bool {
        self.spool.is_some() || state.letters.is_some()
    }

    /// Keeps what is left of a message that is lost: a dead letter when the backend or time gave it up; one that made room for
    /// others would only take that room again.
    pub(super) fn give_up(
        &self,
        state: &mut State,
        slot: &Slot,
        reason: LostReason,
        attempt: Option<&Attempt>,
    ) {
        let is_letter = matches!(
            reason,
            LostReason::Rejected | LostReason::Poison | LostReason::TooOld
        );
        match (&self.spool, &mut state.letters) {
            (Some(_), _) if !slot.is_settled() => {}
            (Some(spool), _) if is_letter => {
                spool.bury(slot.number, self.letter(slot, reason, attempt));
            }
            (Some(spool), _) => spool.remove(Place::new(&slot.uplink.client_id, slot.number)),
            (None, Some(letters)) if is_letter => {
                letters.bury(self.letter(slot, reason, attempt));
            }
            (None, _) => {}
        }
    }

    fn letter(&self, slot: &Slot, reason: LostReason, attempt: Option<&Attempt>) -> DeadLetter {
        let trail = slot.trail.as_deref();
        let last = attempt.or(trail.map(|trail| &trail.last));
        let headers = match &self.forward {
            Some(forward) if slot.attempts > 0 => forward.headers(&slot.uplink, slot.attempts),
            _ => Vec::new(),
        };
        DeadLetter {
            uplink: slot.uplink.clone(),
            reason,
            status: last.and_then(Attempt::status),
            error: last.map_or_else(|| reason.to_string(), ToString::to_string),
            attempts: slot.attempts,
            first_attempt_at: trail.map(|trail| trail.first_at),
            last_attempt_at: trail.map(|trail| trail.last_at),
            given_up_at: SystemTime::now(),
            headers,
        }
    }
}

impl Slot {
    /// Remembers a failed attempt that took so long, for the dead letter the message may become.
    pub(super) fn note(&mut self, attempt: &Attempt, took: Duration) {
        let last_at = SystemTime::now();
        let first_at = match &self.trail {
            Some(trail) => trail.first_at,
            None => last_at - took,
        };
        self.trail = Some(Box::new(Trail {
            first_at,
            last_at,
            last: attempt.clone(),
        }));
    }
}
