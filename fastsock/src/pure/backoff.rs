//! Retry delays: doubling, capped, with full jitter.

use std::time::Duration;

/// A delay that doubles with each failure up to a cap, of which a random part is taken ("full jitter"), so that many
/// who fail together do not come back together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    cap: Duration,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap }
    }

    /// The longest delay after so many failures in a row (1 is the first).
    pub(crate) fn ceiling(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.cap)
    }

    /// A random delay from zero to the ceiling.
    pub(crate) fn delay(&self, failures: u32) -> Duration {
        self.ceiling(failures).mul_f64(fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_the_cap_and_never_overflows() {
        let backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));
        let ceilings = [1, 2, 3, 7, 8, 100, u32::MAX].map(|n| backoff.ceiling(n).as_millis());
        assert_eq!(ceilings, [500, 1000, 2000, 32_000, 60_000, 60_000, 60_000]);
        for failures in 1..50 {
            assert!(backoff.delay(failures) <= backoff.ceiling(failures));
        }
    }
}
