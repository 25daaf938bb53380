//! A session whose device has a mailbox: what is kept for it goes out beside its downlinks, and is asked about until it has it.

use std::task::{Context, Poll};

use super::Session;
use crate::{gateway::socket::Written, types::CloseReason};

impl Session {
    /// Writes what its mailbox gave out, and asks the device about it.
    pub(super) fn write_kept(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        if self.socket.has_queued() {
            return Ok(()); // `write` tries again when the socket takes more
        }
        let is_blocked = match self.socket.poll_write_kept(cx, &self.seat) {
            Poll::Ready(Ok(Written::All)) => false,
            Poll::Ready(Ok(Written::Some)) => {
                cx.waker().wake_by_ref();
                false
            }
            Poll::Ready(Err(_)) => return Err(CloseReason::Lost),
            Poll::Pending => true,
        };
        self.note_progress(is_blocked);
        self.follow_up_kept(cx)
    }

    /// Sends the ping whose pong proves that the device has what was written, and has the mailbox visited when that is of use.
    pub(super) fn follow_up_kept(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        if self.is_leaving {
            return Ok(()); // nothing is written behind the close frame, and `end` removes what is confirmed
        }
        let (ping, wants_visit) = self.seat.follow_up_kept();
        if let Some(ping) = ping {
            self.socket.ping(cx, ping.to_vec().into())?;
            self.write(cx, false)?;
        }
        if wants_visit && let Some(deliveries) = &self.shared.deliveries {
            deliveries.visit_soon(&self.seat.client_id);
        }
        Ok(())
    }

    /// The device acknowledges a kept message.
    pub(super) fn on_kept_ack(
        &mut self,
        id: &str,
        cx: &mut Context<'_>,
    ) -> Result<(), CloseReason> {
        match self.seat.acknowledge(id) {
            true => self.follow_up_kept(cx),
            false => Ok(()), // of an earlier session, or twice
        }
    }
}
