//! A session whose messages wait: for room in its lane, for a hook, for the spool, or for its rate. It reads ahead, so that its
//! device gets pongs for its pings meanwhile, and so that its end is noticed.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::{MESSAGES_A_TURN, Reading, Session, Writing};
use crate::{
    pure::ahead::{AHEAD_BYTES, Ahead},
    types::CloseReason,
};

/// What a session reads next.
pub(super) enum Next {
    /// Straight from the socket.
    Fresh(Message),
    /// A message that was read ahead.
    Kept { is_text: bool, bytes: Bytes },
}

impl Session {
    /// The next message: of those read ahead, or of the socket; then how the session ends, if that was found behind them.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, CloseReason>> {
        if let Some(ahead) = &mut self.ahead {
            if let Some((is_text, bytes)) = ahead.pop() {
                return Poll::Ready(Ok(Next::Kept { is_text, bytes }));
            }
            if let Some(reason) = ahead.take_end() {
                return Poll::Ready(Err(reason));
            }
            self.ahead = None;
        }
        let polled = self.socket.poll_message(cx);
        if polled.is_pending()
            && let Some(meter) = &mut self.meter
        {
            meter.caught_up();
        }
        polled.map_ok(Next::Fresh)
    }

    /// Reads on although no message can be taken: keeps messages for later, answers pings, and notices the end. Not while an
    /// answer waits for the device to read it: then it waits for others as well.
    pub(super) fn read_ahead(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        for _ in 0..MESSAGES_A_TURN {
            if self.socket.has_queued() {
                self.write(cx, false)?;
            }
            let most = self.allowance();
            if self.socket.has_queued() || most == 0 {
                return Ok(());
            }
            let Poll::Ready(polled) = self.socket.poll_ahead(cx, most) else {
                return Ok(());
            };
            match polled {
                Ok(Message::Text(text)) => self.keep(true, text.as_bytes()),
                Ok(Message::Binary(bytes)) => self.keep(false, &bytes),
                Ok(control) => self.on_message(control, cx)?,
                Err(reason) => return self.end_behind(reason, cx),
            }
        }
        cx.waker().wake_by_ref(); // the turn of others
        Ok(())
    }

    /// Whether downlinks may wait for more of them, to share a system call: while a hook answers one message after the other that
    /// its device has sent already. Not for long, since one of these answers may take its time.
    pub(super) fn may_gather(&self) -> bool {
        let ahead = self.ahead.as_ref();
        self.reading == Reading::Undecided
            && self.writing == Writing::Flowing
            && self.acks.is_none()
            && self.shared.status.has_hooks()
            && ahead.is_some_and(|ahead| ahead.len() > 0 && !ahead.has_end())
            && self
                .gathering_since
                .is_none_or(|since| since.elapsed() < GATHER_MAX)
    }

    /// When they are written all the same.
    pub(super) fn gathered_at(&self) -> Option<Instant> {
        self.gathering_since.map(|since| since + GATHER_MAX)
    }

    /// Makes room for one more message if it is known how the session ends once what was read ahead is taken. Then up to [`AHEAD_BYTES`] of it go past the
    /// bound of the lane, so that the device is not kept waiting for the answer to its close frame.
    pub(super) fn reserve_surplus(&self) -> bool {
        let Some(ahead) = self.ahead.as_ref().filter(|ahead| ahead.has_end()) else {
            return false;
        };
        let lanes = &self.shared.lanes;
        let first = ahead.first_len();
        first.is_none_or(|bytes| lanes.reserve_surplus(&self.seat.client_id, bytes, AHEAD_BYTES))
    }

    /// How many bytes may be read ahead now.
    fn allowance(&self) -> usize {
        let held = match &self.ahead {
            Some(ahead) if ahead.has_end() => return 0,
            Some(ahead) => ahead.len(),
            None => 0,
        };
        let answered = self
            .meter
            .as_ref()
            .map_or(0, |meter| meter.answered_bytes());
        let used = held + self.socket.unfinished() + answered;
        self.shared.ahead.allowance(used)
    }

    fn keep(&mut self, is_text: bool, message: &[u8]) {
        self.heartbeat.mark_alive();
        let all = &self.shared.ahead;
        let ahead = self.ahead.get_or_insert_with(|| Ahead::new(all));
        ahead.push(is_text, message);
    }

    /// Its end was found: at once if nothing is before it, else in its place.
    fn end_behind(&mut self, reason: CloseReason, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        if self.ahead.is_none() && self.reading != Reading::Undecided {
            return Err(reason);
        }
        let all = &self.shared.ahead;
        let ahead = self.ahead.get_or_insert_with(|| Ahead::new(all));
        ahead.set_end(reason);
        cx.waker().wake_by_ref(); // what waits for room may go past the bound now
        Ok(())
    }
}

/// Longer than it takes hooks to answer many devices in turn; nobody notices it.
const GATHER_MAX: Duration = Duration::from_millis(5);
