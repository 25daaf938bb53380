//! What happens often is told seldom: a line for the first of its kind, and then at most one in a while, with how often it happened
//! since the last. No I/O, no clock, no lock.

use std::time::Duration;

use tokio::time::Instant;

/// Counts what was not told yet, for each of a few kinds.
#[derive(Debug)]
pub(crate) struct Tally<K> {
    kinds: Vec<(K, Instant, u64)>,
}

impl<K: PartialEq> Tally<K> {
    pub(crate) fn new() -> Self {
        Self { kinds: Vec::new() }
    }

    /// One more of a kind. Returns how many are to be told now.
    pub(crate) fn count(&mut self, kind: K, now: Instant) -> Option<u64> {
        let Some((_, told_at, untold)) = self.kinds.iter_mut().find(|(k, ..)| *k == kind) else {
            self.kinds.push((kind, now, 0));
            return Some(1);
        };
        *untold += 1;
        if now < *told_at + EVERY {
            return None;
        }
        *told_at = now;
        Some(std::mem::take(untold))
    }

    /// What is to be told by now although nothing more of its kind has happened.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<(K, u64)>
    where
        K: Clone,
    {
        self.tell(now, |told_at| now >= told_at + EVERY)
    }

    /// All that was not told yet, at the end.
    pub(crate) fn rest(&mut self, now: Instant) -> Vec<(K, u64)>
    where
        K: Clone,
    {
        self.tell(now, |_| true)
    }

    fn tell(&mut self, now: Instant, is_due: impl Fn(Instant) -> bool) -> Vec<(K, u64)>
    where
        K: Clone,
    {
        let mut told = Vec::new();
        for (kind, told_at, untold) in &mut self.kinds {
            if *untold > 0 && is_due(*told_at) {
                *told_at = now;
                told.push((kind.clone(), std::mem::take(untold)));
            }
        }
        told
    }
}

/// How long the next of a kind are only counted.
pub(crate) const EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_others_together() {
        let (mut tally, start) = (Tally::new(), Instant::now());
        let at = |s| start + Duration::from_secs(s);
        assert_eq!(tally.count("a", at(0)), Some(1));
        assert_eq!(tally.count("a", at(1)), None);
        assert_eq!(tally.count("b", at(1)), Some(1));
        assert_eq!(tally.count("a", at(9)), None);
        assert_eq!(tally.count("a", at(10)), Some(3));
        assert_eq!(tally.count("a", at(19)), None);
        assert_eq!(tally.count("a", at(90)), Some(2));
        // The last ones are told without another.
        assert_eq!(tally.due(at(120)), []);
        assert_eq!(tally.count("a", at(121)), Some(1));
        assert_eq!(tally.count("a", at(122)), None);
        assert_eq!(tally.due(at(130)), []);
        assert_eq!(tally.due(at(131)), [("a", 1)]);
        assert_eq!(tally.count("a", at(132)), None);
        assert_eq!(tally.rest(at(133)), [("a", 1)]);
        assert_eq!(tally.rest(at(134)), []);
    }
}
