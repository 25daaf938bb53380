//! When a device was last heard and last written to, in 16 bytes a session.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

/// Times count from the beginning of the session, in tenths of a second and from 1; 0 is never.
#[derive(Debug, Default)]
pub(crate) struct Signs {
    uplink: AtomicU32,
    downlink: AtomicU32,
    pong: AtomicU32,
    /// Of the last ping, in microseconds.
    round_trip_us: AtomicU32,
}

/// The same, to look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SignTimes {
    pub(crate) uplink: Option<Duration>,
    pub(crate) downlink: Option<Duration>,
    pub(crate) pong: Option<Duration>,
    pub(crate) round_trip: Option<Duration>,
}

impl Signs {
    pub(crate) fn uplink(&self, since: Duration) {
        self.uplink.store(tenths(since), Relaxed);
    }

    pub(crate) fn downlink(&self, since: Duration) {
        self.downlink.store(tenths(since), Relaxed);
    }

    pub(crate) fn pong(&self, since: Duration, round_trip: Duration) {
        let us = u32::try_from(round_trip.as_micros()).unwrap_or(u32::MAX);
        self.round_trip_us.store(us, Relaxed);
        self.pong.store(tenths(since), Relaxed);
    }

    /// The round trip of the last ping, once there was one.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        let us = self.round_trip_us.load(Relaxed);
        (self.pong.load(Relaxed) > 0).then(|| Duration::from_micros(us.into()))
    }

    pub(crate) fn times(&self) -> SignTimes {
        let time = |tenths: &AtomicU32| {
            let past = tenths.load(Relaxed).checked_sub(1)?;
            Some(Duration::from_millis(u64::from(past) * 100))
        };
        SignTimes {
            uplink: time(&self.uplink),
            downlink: time(&self.downlink),
            pong: time(&self.pong),
            round_trip: self.round_trip(),
        }
    }
}

/// A session of 13 years comes to the end of this.
fn tenths(since: Duration) -> u32 {
    u32::try_from(since.as_millis() / 100 + 1).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_is_known_to_a_tenth_of_a_second_and_takes_four_bytes() {
        let signs = Signs::default();
        assert_eq!(signs.times(), SignTimes::default());
        signs.uplink(Duration::ZERO);
        signs.downlink(Duration::from_millis(1299));
        signs.pong(
            Duration::from_secs(86_400 * 365),
            Duration::from_micros(123),
        );
        let expected = SignTimes {
            uplink: Some(Duration::ZERO),
            downlink: Some(Duration::from_millis(1200)),
            pong: Some(Duration::from_secs(86_400 * 365)),
            round_trip: Some(Duration::from_micros(123)),
        };
        assert_eq!(signs.times(), expected);
        assert_eq!(size_of::<Signs>(), 16);
    }
}
