//! Dead letters of the memory spool: a small copy of what was given up, to be looked at and replayed until the process ends.
//! No I/O, no clock, no lock.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
    time::{Duration, SystemTime},
};

use uuid::Uuid;

use crate::{config::Config, types::DeadLetter};

/// The newest dead letters, within bounds of their number, their size and their age.
#[derive(Debug)]
pub(crate) struct Letters {
    kept: BTreeMap<Uuid, DeadLetter>,
    bytes: usize,
    most: usize,
    max_age: Duration,
    /// How many are gone for good.
    dropped: u64,
}

impl Letters {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            kept: BTreeMap::new(),
            bytes: 0,
            most: config.spool.dead_letters_max.min(MOST),
            max_age: config.spool.dead_letters_max_age,
            dropped: 0,
        }
    }

    /// Keeps a letter; the oldest go to make room for it.
    pub(crate) fn bury(&mut self, letter: DeadLetter) {
        self.take(letter.uplink.id); // given up twice, it is one
        self.bytes += cost(&letter);
        self.kept.insert(letter.uplink.id, letter);
        while self.kept.len() > self.most || self.bytes > MOST_BYTES {
            let Some((_, oldest)) = self.kept.pop_first() else {
                return;
            };
            self.bytes -= cost(&oldest);
            self.dropped += 1;
        }
    }

    /// At most `limit` from the first above `after`, in the order of their ids.
    pub(crate) fn list(&self, after: Option<Uuid>, limit: usize) -> Vec<DeadLetter> {
        let above = (after.map_or(Unbounded, Excluded), Unbounded);
        let letters = self.kept.range(above).take(limit);
        letters.map(|(_, letter)| letter.clone()).collect()
    }

    /// The letter with this id.
    pub(crate) fn find(&self, id: Uuid) -> Option<DeadLetter> {
        self.kept.get(&id).cloned()
    }

    /// Takes a letter out, to be an uplink again.
    pub(crate) fn take(&mut self, id: Uuid) -> Option<DeadLetter> {
        let letter = self.kept.remove(&id)?;
        self.bytes -= cost(&letter);
        Some(letter)
    }

    /// Drops a letter for good. Whether it was there.
    pub(crate) fn drop_letter(&mut self, id: Uuid) -> bool {
        let was_there = self.take(id).is_some();
        self.dropped += u64::from(was_there);
        was_there
    }

    /// Drops those that were given up too long ago.
    pub(crate) fn expire(&mut self, now: SystemTime) {
        let (before, max_age) = (self.kept.len(), self.max_age);
        self.kept.retain(|_, letter| {
            let age = now.duration_since(letter.given_up_at);
            age.unwrap_or_default() <= max_age
        });
        self.bytes = self.kept.values().map(cost).sum();
        self.dropped += (before - self.kept.len()) as u64;
    }

    /// How many there are, and how many are gone for good.
    pub(crate) fn books(&self) -> (u64, u64) {
        (self.kept.len() as u64, self.dropped)
    }
}

/// What a letter takes in memory, about.
fn cost(letter: &DeadLetter) -> usize {
    let headers = letter.headers.iter();
    let headers: usize = headers.map(|(name, value)| name.len() + value.len()).sum();
    let client_id = letter.uplink.client_id.as_str().len();
    client_id + letter.uplink.payload.len() + letter.error.len() + headers + OVERHEAD_BYTES
}

/// However many `dead_letters_max` allows.
const MOST: usize = 1000;
const MOST_BYTES: usize = 1 << 20;
/// The letter itself, and the bookkeeping of some ten headers.
const OVERHEAD_BYTES: usize = 768;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ClientId, LostReason, SessionId, Uplink};

    fn letter(seq: u64, bytes: usize) -> DeadLetter {
        let client_id = ClientId::new("dev1").unwrap();
        DeadLetter {
            uplink: Uplink::new(client_id, SessionId(1), seq, "x".repeat(bytes).into()),
            reason: LostReason::Rejected,
            status: Some(400),
            error: "answered 400".into(),
            attempts: 1,
            first_attempt_at: None,
            last_attempt_at: None,
            given_up_at: SystemTime::now(),
            headers: Vec::new(),
        }
    }

    fn letters(most: usize) -> Letters {
        Letters::new(&Config::default().dead_letters_max(most))
    }

    fn seqs(letters: &[DeadLetter]) -> Vec<u64> {
        letters.iter().map(|letter| letter.uplink.seq).collect()
    }

    #[test]
    fn the_newest_are_kept_within_their_number_and_their_size() {
        let mut few = letters(3);
        (1..=5).for_each(|seq| few.bury(letter(seq, 1)));
        assert_eq!(seqs(&few.list(None, 10)), [3, 4, 5]);
        assert_eq!(few.books(), (3, 2));

        let mut none = letters(0);
        none.bury(letter(1, 1));
        assert_eq!((none.books(), none.bytes), ((0, 1), 0));

        let mut many = letters(1_000_000);
        (1..=5000).for_each(|seq| many.bury(letter(seq, 1)));
        assert_eq!(many.books(), (1000, 4000));

        let mut large = letters(10);
        large.bury(letter(1, MOST_BYTES / 2));
        large.bury(letter(2, MOST_BYTES / 2));
        assert_eq!(seqs(&large.list(None, 10)), [2]);
        large.bury(letter(3, MOST_BYTES));
        assert_eq!(
            (large.books(), large.bytes),
            ((0, 3), 0),
            "too large to keep"
        );
    }

    #[test]
    fn the_names_of_devices_count_as_well() {
        let mut letters = letters(1000);
        for seq in 1..=1000 {
            let mut letter = letter(seq, 1);
            letter.uplink.client_id = ClientId::new("x".repeat(8000)).unwrap();
            letters.bury(letter);
        }
        let held: usize = letters
            .kept
            .values()
            .map(|l| l.uplink.client_id.as_str().len())
            .sum();
        assert!(held <= MOST_BYTES, "{held}");
    }

    #[test]
    fn they_are_listed_page_by_page_found_taken_and_dropped_once() {
        let mut letters = letters(10);
        let buried: Vec<_> = (1..=5).map(|seq| letter(seq, 9)).collect();
        for letter in buried.iter().rev() {
            letters.bury(letter.clone());
            letters.bury(letter.clone());
        }
        let id = |n: usize| buried[n].uplink.id;
        assert_eq!(seqs(&letters.list(None, 2)), [1, 2]);
        assert_eq!(seqs(&letters.list(Some(id(1)), 2)), [3, 4]);
        assert_eq!(letters.find(id(2)).unwrap().uplink.seq, 3);
        assert_eq!(letters.take(id(2)).unwrap().uplink.seq, 3);
        assert!(letters.find(id(2)).is_none() && letters.take(id(2)).is_none());
        assert!(letters.drop_letter(id(0)) && !letters.drop_letter(id(0)));
        assert_eq!(letters.books(), (3, 1), "one that is taken is not gone");
        for n in [1, 3, 4] {
            letters.take(id(n));
        }
        assert_eq!(letters.bytes, 0);
    }

    #[test]
    fn those_given_up_too_long_ago_expire() {
        let mut letters = letters(10);
        let mut old = letter(1, 9);
        old.given_up_at -= Duration::from_secs(31 * 24 * 3600);
        letters.bury(old);
        letters.bury(letter(2, 9));
        letters.expire(SystemTime::now());
        assert_eq!(seqs(&letters.list(None, 10)), [2]);
        assert_eq!(
            (letters.books(), letters.bytes),
            ((1, 1), cost(&letter(2, 9)))
        );
    }
}
