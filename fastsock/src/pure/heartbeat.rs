//! When to ping and when to give up. No I/O and no clock.

use std::time::Duration;

use tokio::time::Instant;

/// The heartbeat of one session.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    interval: Duration,
    next: Option<Instant>,
    is_alive: bool,
    /// A ping has no pong yet.
    is_asked: bool,
    /// How long before `next` the last ping went, in tens of microseconds.
    lead: u32,
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
    /// are not pinged together; but at a step of a grid that all sessions share, so that not each of them wakes a
    /// sleeping thread of its own. A zero interval never beats.
    pub(crate) fn new(interval: Duration, now: Instant, part: f64, grid: Instant) -> Self {
        let next = (!interval.is_zero()).then(|| {
            let step = GRID.min(interval / 16).max(Duration::from_millis(1));
            let wanted = now + interval.mul_f64(part);
            let steps = (wanted - grid).as_nanos().div_ceil(step.as_nanos());
            grid + Duration::from_nanos((steps * step.as_nanos()) as u64)
        });
        Self {
            interval,
            next,
            is_alive: true,
            is_asked: false,
            lead: 0,
        }
    }

    /// A pong came. How long after its ping, if it is the first since that: others were not asked for.
    pub(crate) fn pong(&mut self, now: Instant) -> Option<Duration> {
        let next = self.next.filter(|_| std::mem::take(&mut self.is_asked))?;
        let lead = LEAD_UNIT * self.lead;
        Some((now + lead).saturating_duration_since(next))
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
        // Much too late, it was the process that stood still: the device may have answered and not been read yet.
        let is_late = now - next > self.interval / 2;
        if !self.is_alive && !is_late {
            return Beat::GiveUp;
        }
        self.is_alive = false;
        self.is_asked = true;
        let next = self.after(next, now);
        let lead = (next - now).as_nanos() / LEAD_UNIT.as_nanos();
        self.lead = u32::try_from(lead).unwrap_or(u32::MAX);
        self.next = Some(next);
        Beat::Ping
    }

    /// The beat after one that was due at `due`: keeps the rhythm and skips what was missed, but leaves the device half an
    /// interval to answer.
    fn after(&self, due: Instant, now: Instant) -> Instant {
        let beats = (now - due).as_nanos() / self.interval.as_nanos() + 1;
        let next = due + self.interval * u32::try_from(beats).unwrap_or(u32::MAX);
        if next < now + self.interval / 2 {
            next + self.interval
        } else {
            next
        }
    }
}

/// Coarse enough to gather the pings of many devices, fine enough that their burst delays nobody by much: 10,000 devices
/// with a ping each 5 s make 100 a step.
const GRID: Duration = Duration::from_millis(50);
/// Fine enough for a round trip, coarse enough for an interval of 11 h.
const LEAD_UNIT: Duration = Duration::from_micros(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_a_sign_of_life_by_its_next_ping_is_given_up() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut heartbeat = Heartbeat::new(second, start, 0.5, start);
        assert_eq!(heartbeat.tick(start), Beat::Wait);
        assert_eq!(heartbeat.pong(start), None, "nobody has asked");
        let asked_at = start + second / 2 + Duration::from_millis(3);
        assert_eq!(heartbeat.tick(asked_at), Beat::Ping);
        let took = Duration::from_micros(1270);
        assert_eq!(heartbeat.pong(asked_at + took), Some(took));
        assert_eq!(heartbeat.pong(asked_at + took), None, "one a ping");
        heartbeat.mark_alive();
        assert_eq!(heartbeat.tick(start + second), Beat::Wait);
        assert_eq!(heartbeat.tick(start + second * 3 / 2), Beat::Ping);
        assert_eq!(heartbeat.tick(start + second * 5 / 2), Beat::GiveUp);
    }

    #[test]
    fn a_process_that_stood_still_asks_anew() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut heartbeat = Heartbeat::new(second, start, 0.5, start);
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(heartbeat.tick(at(5200)), Beat::Ping);
        assert_eq!(
            heartbeat.deadline(),
            Some(at(6500)),
            "5500 would be too soon"
        );
        assert_eq!(heartbeat.tick(at(5200)), Beat::Wait);
        assert_eq!(heartbeat.tick(at(9800)), Beat::Ping, "nobody is blamed");
        assert_eq!(heartbeat.deadline(), Some(at(10_500)));
        assert_eq!(heartbeat.tick(at(10_500)), Beat::GiveUp);
    }

    #[test]
    fn sessions_that_start_apart_beat_together() {
        let grid = Instant::now();
        let second = Duration::from_secs(1);
        let at = |now_ms, part| {
            let now = grid + Duration::from_millis(now_ms);
            let next = Heartbeat::new(second, now, part, grid).deadline().unwrap();
            assert!(
                next >= now.max(now + second.mul_f64(part))
                    && next <= now + second.mul_f64(part) + GRID
            );
            (next - grid).as_millis()
        };
        assert_eq!([at(1, 0.5), at(3, 0.51), at(49, 0.5)], [550, 550, 550]);
    }

    #[test]
    fn a_zero_interval_never_beats() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(Duration::ZERO, start, 0.5, start);
        assert_eq!(heartbeat.deadline(), None);
        assert_eq!(
            heartbeat.tick(start + Duration::from_secs(1 << 20)),
            Beat::Wait
        );
    }
}
