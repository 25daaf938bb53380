//! When to ping and when to give up. No I/O and no clock.

use std::time::Duration;

use tokio::time::Instant;

/// The heartbeat of one session.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    interval: Duration,
    next: Option<Instant>,
    is_alive: bool,
}

/// What a session has to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    /// Nothing yet.
    Wait,
    /// Send an empty ping.
    Ping,
    /// No sign of life since the last ping: cut it.
    GiveUp,
}

impl Heartbeat {
    /// Starts now. The first ping comes after a part of the interval (0 to 1), so that devices that connected together
    /// are not pinged together. A zero interval never beats.
    pub(crate) fn new(interval: Duration, now: Instant, part: f64) -> Self {
        let next = (!interval.is_zero()).then(|| now + interval.mul_f64(part));
        Self {
            interval,
            next,
            is_alive: true,
        }
    }

    /// A pong or any other frame came.
    pub(crate) fn mark_alive(&mut self) {
        self.is_alive = true;
    }

    /// When to call [`Heartbeat::tick`] next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Advances to `now`.
    pub(crate) fn tick(&mut self, now: Instant) -> Beat {
        let Some(next) = self.next.filter(|next| *next <= now) else {
            return Beat::Wait;
        };
        if !self.is_alive {
            return Beat::GiveUp;
        }
        self.is_alive = false;
        // Keeps the rhythm; skips beats that a stalled runtime missed.
        self.next = Some((next + self.interval).max(now));
        Beat::Ping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_a_sign_of_life_by_its_next_ping_is_given_up() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut heartbeat = Heartbeat::new(second, start, 0.5);
        assert_eq!(heartbeat.tick(start), Beat::Wait);
        assert_eq!(heartbeat.tick(start + second / 2), Beat::Ping);
        heartbeat.mark_alive();
        assert_eq!(heartbeat.tick(start + second), Beat::Wait);
        assert_eq!(heartbeat.tick(start + second * 3 / 2), Beat::Ping);
        assert_eq!(heartbeat.tick(start + second * 5 / 2), Beat::GiveUp);
    }

    #[test]
    fn a_zero_interval_never_beats() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(Duration::ZERO, start, 0.5);
        assert_eq!(heartbeat.deadline(), None);
        assert_eq!(
            heartbeat.tick(start + Duration::from_secs(1 << 20)),
            Beat::Wait
        );
    }
}
