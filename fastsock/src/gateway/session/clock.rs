//! What a session does when time has passed: heartbeat, deadlines, the care of its outbox.

use std::{
    future::Future,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{FAR_FUTURE, Reading, Session, Writing};
use crate::{pure::heartbeat::Beat, types::CloseReason};

impl Session {
    /// Acts on what is due, and sleeps until the next of it.
    pub(super) fn watch_the_clock(
        &mut self,
        cx: &mut Context<'_>,
        needs_care: bool,
    ) -> Poll<CloseReason> {
        loop {
            let care_at = if needs_care { self.look_after() } else { None };
            let deadline = self.deadline(care_at);
            if self.timer.deadline() != deadline {
                self.timer.as_mut().reset(deadline);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if let Writing::Stalled { since, .. } = self.writing
                && now >= since + self.shared.config.limits.write_timeout
            {
                return Poll::Ready(CloseReason::SlowConsumer);
            }
            if let Reading::Paused { since } = self.reading
                && now >= since + PAUSED_MAX
            {
                if self
                    .shared
                    .lanes
                    .was_destination_up(&self.seat.client_id, since)
                    && self.shared.lanes.is_lane_full(&self.seat.client_id)
                {
                    return Poll::Ready(CloseReason::TryAgainLater);
                }
                self.reading = Reading::Paused { since: now }; // the destination was down: that is not the device's doing
            }
            if self.expiry().is_some_and(|expiry| now >= expiry) {
                return Poll::Ready(CloseReason::TokenExpired);
            }
            let resumes_at = self.resumes_at();
            let is_due = |at: Option<Instant>| at.is_some_and(|at| now >= at);
            if is_due(resumes_at) || is_due(self.gathered_at()) {
                cx.waker().wake_by_ref(); // the next turn reads, or writes
                return Poll::Pending;
            }
            match self.heartbeat.tick(now) {
                Beat::Wait => {}
                // While it is not read, the kernel watches over it instead (TCP_USER_TIMEOUT).
                Beat::GiveUp if self.reading == Reading::Open && resumes_at.is_none() => {
                    return Poll::Ready(CloseReason::NoLife);
                }
                Beat::GiveUp => self.heartbeat.mark_alive(),
                Beat::Ping => {
                    if matches!(self.reading, Reading::Paused { .. }) {
                        self.socket.set_user_timeout(Some(PAUSED_USER_TIMEOUT));
                    }
                    if let Err(reason) = self.socket.ping(cx, Bytes::new()) {
                        return Poll::Ready(reason);
                    }
                    if let Err(reason) = self.write(cx, false) {
                        return Poll::Ready(reason);
                    }
                }
            }
        }
    }

    /// Looks after a seat that has lost downlinks, or holds more than its share. Returns when to do that again.
    #[cold]
    fn look_after(&self) -> Option<Instant> {
        let (lines, next) = self.seat.look_after(Instant::now());
        self.seat.tell_losses(lines, None);
        next
    }

    /// When the clock is to be looked at next.
    fn deadline(&self, care_at: Option<Instant>) -> Instant {
        let stall = match self.writing {
            Writing::Stalled { since, .. } => Some(since + self.shared.config.limits.write_timeout),
            Writing::Flowing => None,
        };
        let pause = match self.reading {
            Reading::Paused { since } => Some(since + PAUSED_MAX),
            Reading::Open | Reading::Undecided => None,
        };
        let (resume, expiry) = (self.resumes_at(), self.expiry());
        let (beat, gathered) = (self.heartbeat.deadline(), self.gathered_at());
        [beat, stall, pause, resume, expiry, gathered, care_at]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or_else(|| self.far_future())
    }

    /// When what it was let in on runs out.
    fn expiry(&self) -> Option<Instant> {
        self.seat.grant()?.until
    }

    /// Nothing is due. Keeps what the timer has if that is far enough, so that it is not set anew each turn.
    fn far_future(&self) -> Instant {
        let (set, now) = (self.timer.deadline(), Instant::now());
        if set > now + FAR_FUTURE / 2 {
            set
        } else {
            now + FAR_FUTURE
        }
    }

    /// When a device that has said too much is read again.
    pub(super) fn resumes_at(&self) -> Option<Instant> {
        self.meter.as_ref().and_then(|meter| meter.resumes_at())
    }
}

/// A lane that stays full this long while the destination is up closes its device with 1013.
const PAUSED_MAX: Duration = Duration::from_secs(30);
const PAUSED_USER_TIMEOUT: Duration = Duration::from_secs(60);
