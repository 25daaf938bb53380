//! Time in nanoseconds since the start of the bench.

use std::time::{Duration, Instant};

/// The clock all due times and arrivals are read from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// Starts at zero.
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }

    /// Nanoseconds since then.
    pub(crate) fn now(self) -> u64 {
        nanos(self.0.elapsed())
    }
}

/// A time span in nanoseconds; one of 500 years is as good as for ever.
pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// One second.
pub(crate) const SECOND: u64 = 1_000_000_000;
