//! How long something took, counted into buckets by many tasks without a lock.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::locks::Mutex;

/// A histogram of durations, from half a millisecond to an hour.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// One for each bound, and one for all beyond the last.
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// What a [`Histogram`] had counted at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Durations {
    /// The upper bound of each bucket in seconds, the last infinite, and how many are in it alone.
    pub(crate) buckets: Vec<(f64, u64)>,
    pub(crate) sum_seconds: f64,
}

/// What several histograms had counted at some moments of the last minute and a bit, so that what is recent can be told from what is not.
#[derive(Debug, Default)]
pub(crate) struct LastMinute(Mutex<VecDeque<(Instant, Vec<Durations>)>>);

impl Histogram {
    /// Two relaxed additions and a search among 18 bounds.
    pub(crate) fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let index = BOUNDS_US.partition_point(|bound| *bound < us);
        self.buckets[index].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Durations {
        let bounds = BOUNDS_US.iter().map(|us| *us as f64 / 1e6);
        let bounds = bounds.chain([f64::INFINITY]);
        let counts = self.buckets.iter().map(|count| count.load(Relaxed));
        Durations {
            buckets: bounds.zip(counts).collect(),
            sum_seconds: self.sum_us.load(Relaxed) as f64 / 1e6,
        }
    }
}

impl LastMinute {
    /// How often a moment is to be kept.
    pub(crate) const EVERY: Duration = Duration::from_secs(5);

    /// Keeps a moment, and lets go of those that no look needs any more.
    pub(crate) fn keep(&self, now: Instant, counted: Vec<Durations>) {
        let mut moments = self.0.lock();
        let is_old = |at: &Instant| now.duration_since(*at) >= MINUTE;
        while moments.get(1).is_some_and(|(at, _)| is_old(at)) {
            moments.pop_front();
        }
        moments.push_back((now, counted));
    }

    /// What each of them has counted since a moment at least a minute ago, or since the start.
    pub(crate) fn since(&self, now: Instant, mut counted: Vec<Durations>) -> Vec<Durations> {
        let moments = self.0.lock();
        let is_old = |at: &Instant| now.duration_since(*at) >= MINUTE;
        let before = moments.iter().rev().find(|(at, _)| is_old(at));
        if let Some((_, before)) = before {
            counted
                .iter_mut()
                .zip(before)
                .for_each(|(now, before)| now.forget(before));
        }
        counted
    }
}

impl Durations {
    /// Leaves only what was counted after that.
    fn forget(&mut self, before: &Self) {
        for ((_, count), (_, earlier)) in self.buckets.iter_mut().zip(&before.buckets) {
            *count = count.saturating_sub(*earlier);
        }
        self.sum_seconds = (self.sum_seconds - before.sum_seconds).max(0.0);
    }

    /// How many there are in all buckets.
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// The bound, in seconds, that this part (0 to 1) of all stays within; `None` with nothing counted. What is beyond the last
    /// bound counts as that.
    pub(crate) fn quantile(&self, part: f64) -> Option<f64> {
        let wanted = (self.count() as f64 * part).ceil() as u64;
        let mut seen = 0;
        let longest = BOUNDS_US[BOUNDS_US.len() - 1] as f64 / 1e6;
        let bounds = self.buckets.iter().filter(|(_, count)| *count > 0);
        let mut bounds = bounds.map(|(bound, count)| {
            seen += count;
            (*bound, seen)
        });
        let (bound, _) = bounds.find(|(_, seen)| *seen >= wanted)?;
        Some(bound.min(longest))
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// Upper bounds of the buckets in microseconds: what a backend nearby takes, and what an outage does.
const BOUNDS_US: [u64; 18] = [
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    3_600_000_000,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_over_a_minute_ago_is_not_recent() {
        let (histogram, moments, start) =
            (Histogram::default(), LastMinute::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let counted = || vec![histogram.snapshot()];
        let recent = |seconds| {
            let recent = moments.since(at(seconds), counted());
            (recent[0].count(), recent[0].quantile(0.99))
        };
        assert_eq!(recent(0), (0, None));
        for second in (0..200).step_by(5) {
            let took = if second < 100 { 2_000 } else { 20 };
            histogram.observe(Duration::from_millis(took));
            moments.keep(at(second), counted());
            let kept = moments.0.lock().len();
            assert!(kept <= 14, "{kept}");
        }
        assert_eq!(recent(59), (40, Some(2.5)), "since the start");
        assert_eq!(recent(199), (12, Some(0.025)));
        assert_eq!(recent(500), (0, None));
    }

    #[test]
    fn a_duration_is_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for us in [0, 500, 501, 1_000, 2_000_000, 3_600_000_000, u64::MAX / 2] {
            histogram.observe(Duration::from_micros(us));
        }
        let found = histogram.snapshot();
        let within = |seconds| {
            let bucket = found.buckets.iter().find(|(bound, _)| *bound == seconds);
            bucket.unwrap().1
        };
        assert_eq!(
            [0.0005, 0.001, 0.0025, 2.5, 3600.0, f64::INFINITY].map(within),
            [2, 2, 0, 1, 1, 1]
        );
        assert_eq!((found.count(), found.quantile(0.5)), (7, Some(0.001)));
        assert_eq!(found.quantile(1.0), Some(3600.0));
    }
}
