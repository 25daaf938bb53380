//! What Redis's clock says.

/// What Redis's clock says, known by what it said between a question and its answer. No I/O.
///
/// Who has which seat goes by it, so it must not depend on how long one answer took on a busy day: each answer leaves a span
/// of what may be, and what all of them leave is the best there is.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// The least and the most that Redis's microseconds are ahead of ours, which count from the start.
    least_ahead_us: i64,
    most_ahead_us: i64,
}

impl Clock {
    pub(super) fn said(&mut self, clock_us: u64, asked_us: u64, answered_us: u64) {
        let ahead_of = |us: u64| clock_us as i64 - us as i64;
        let (least, most) = (ahead_of(answered_us), ahead_of(asked_us));
        let both = (self.least_ahead_us.max(least), self.most_ahead_us.min(most));
        // Apart: a clock was set, or they have drifted, or this is another server.
        (self.least_ahead_us, self.most_ahead_us) = if both.0 <= both.1 {
            both
        } else {
            (least, most)
        };
    }

    /// Whether it has said anything yet.
    pub(super) fn is_known(&self) -> bool {
        (self.least_ahead_us, self.most_ahead_us) != (0, 0)
    }

    /// In milliseconds what it said at a moment of ours.
    pub(super) fn epoch_of(&self, moment_ms: u64) -> u64 {
        let ahead_us = self.least_ahead_us.midpoint(self.most_ahead_us);
        (moment_ms * 1000).saturating_add_signed(ahead_us) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_by_the_quickest_answers_until_it_is_set() {
        let mut clock = Clock::default();
        clock.said(1_000_500_000, 100_000, 900_000);
        assert_eq!(clock.epoch_of(1000), 1_001_000, "somewhere between");
        clock.said(1_001_004_000, 1_000_000, 1_002_000);
        assert_eq!(clock.epoch_of(1000), 1_001_003);
        clock.said(1_002_500_000, 2_000_000, 2_900_000);
        assert_eq!(
            clock.epoch_of(1000),
            1_001_003,
            "a slow one changes nothing"
        );
        clock.said(500_000_000, 4_000_000, 4_000_000);
        assert_eq!(clock.epoch_of(4000), 500_000, "it was set back");
    }
}
