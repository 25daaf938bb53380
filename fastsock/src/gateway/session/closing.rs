//! How a session ends: its seat, its last word to the device, hearing the device out, and waiting until it has heard.

use std::{
    future::{Future, poll_fn},
    task::{Context, Poll},
};

use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::Message;

use super::Session;
use crate::{
    gateway::socket::Socket,
    net::linger::linger,
    pure::envelope::{self, Said},
    types::CloseReason,
};

impl Session {
    /// Leaves the seat, closes the socket as the reason demands, and tells the world last.
    pub(super) async fn end(mut self, reason: CloseReason) {
        let (shared, seat) = (self.shared.clone(), self.seat.clone());
        let announcements = &shared.announcements;
        announcements.unseat(&seat, &reason);
        if !is_heard_out(&reason) {
            announcements.left(&seat, &reason);
        }
        self.is_leaving = true;
        tokio::select! {
            biased; // the close frame gets its chance when the time is over already, too
            () = self.hang_up(&reason) => {}
            () = shared.sessions.stopping() => {}
        }
        announcements.left(&seat, &reason);
    }

    /// Says why, and waits until the device has heard it; at most `close_timeout`.
    async fn hang_up(mut self, reason: &CloseReason) {
        let now = Instant::now();
        let time = self.shared.config.limits.close_timeout;
        let is_clean = if is_heard_out(reason) {
            self.hear_out(reason, now + time / 2, now + time).await
        } else {
            timeout_at(now + time, self.say_goodbye(reason))
                .await
                .unwrap_or(false)
        };
        let is_heard = is_heard_out(reason) || reason.code().is_none();
        if is_clean && !is_heard && self.seat.has_unconfirmed() {
            let _ = timeout_at(now + time, self.hear_answer()).await;
        }
        if let Some(deliveries) = &self.shared.deliveries {
            deliveries.end(&self.seat);
        }
        if is_clean && let Ok(Ok(stream)) = timeout_at(now + time, self.socket.end()).await {
            linger(stream, now + time, &self.shared.limits.lingering).await;
        }
        drop(self.permits);
    }

    /// Waits for the device's answer to our close frame: it has then read all that was written before, kept messages too.
    async fn hear_answer(&mut self) {
        loop {
            match poll_fn(|cx| self.socket.poll_message(cx)).await {
                Ok(Message::Pong(payload)) => drop(self.seat.pong(&payload)),
                Ok(Message::Text(text)) => {
                    if let Some(Said::Ack(id)) = envelope::open_2(text.as_bytes()) {
                        self.seat.acknowledge(&id);
                    }
                }
                Ok(_) => {}
                Err(CloseReason::ByDevice(_)) => return self.seat.close_answered(),
                Err(_) => return,
            }
        }
    }

    /// Sends the close frame, or the answer to the device's. `false` when there is nobody to hear it.
    async fn say_goodbye(&mut self, reason: &CloseReason) -> bool {
        let said = match reason {
            CloseReason::Lost | CloseReason::NoLife => false,
            CloseReason::ByDevice(code) => {
                let code = *code;
                self.queue_last(|socket, cx| socket.answer_close(cx, code))
                    .await
            }
            reason => self.queue_close(reason).await,
        };
        said && poll_fn(|cx| self.socket.poll_flush(cx)).await.is_ok()
    }

    /// Sends the close frame and takes what the device has said before it answers: it could not know, and it is not to blame. A
    /// device that does not answer until `patient` is told in the other way as well, by the end of the connection (FIN). Not
    /// before: a proxy in between would end both directions. Returns whether the connection is still there.
    async fn hear_out(
        &mut self,
        reason: &CloseReason,
        patient: Instant,
        deadline: Instant,
    ) -> bool {
        if !self.queue_close(reason).await {
            return false;
        }
        let mut end = timeout_at(patient, poll_fn(|cx| self.poll_last(cx))).await;
        if end.is_err() {
            let _ = timeout_at(deadline, poll_fn(|cx| self.socket.poll_shutdown(cx))).await;
            end = timeout_at(deadline, poll_fn(|cx| self.poll_last(cx))).await;
        }
        if let Ok(CloseReason::ByDevice(_)) = &end {
            self.seat.close_answered();
        }
        end.is_ok_and(|end| end != CloseReason::Lost)
    }

    /// Sends the close frame and reads, as far as both go, until the device's side ends.
    fn poll_last(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        if let Err(end) = self.flush(cx).and_then(|_| self.read(cx)) {
            return Poll::Ready(end);
        }
        // Over its rate it is not read for a while.
        if let Some(at) = self.resumes_at() {
            self.timer.as_mut().reset(at);
            if self.timer.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    async fn queue_close(&mut self, reason: &CloseReason) -> bool {
        let code = reason.code().unwrap_or(1000);
        self.queue_last(|socket, cx| socket.close(cx, code, reason.as_str()))
            .await
    }

    /// Queues the last frame. `false` when the connection is gone.
    async fn queue_last(
        &mut self,
        queue: impl Fn(&mut Socket, &mut Context<'_>) -> Result<(), CloseReason>,
    ) -> bool {
        poll_fn(|cx| Poll::Ready(queue(&mut self.socket, cx)))
            .await
            .is_ok()
    }
}

/// Whether the device's messages still count after the close frame: it has done nothing wrong, and goes on elsewhere.
fn is_heard_out(reason: &CloseReason) -> bool {
    matches!(reason, CloseReason::Shutdown | CloseReason::Drain)
}
