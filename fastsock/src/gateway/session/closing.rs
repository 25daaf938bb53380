//! How a session ends: its seat, its last word to the device, and waiting until the device has heard it.

use std::{future::poll_fn, task::Poll};

use tokio::time::{Instant, timeout_at};

use super::Session;
use crate::{net::linger::linger, types::CloseReason};

impl Session {
    /// Leaves the seat, closes the socket as the reason demands, and tells the world last.
    pub(super) async fn end(self, reason: CloseReason) {
        self.shared.announcements.leave(&self.seat, &reason);
        let shared = self.shared.clone();
        tokio::select! {
            biased; // the close frame gets its chance when the time is over already, too
            () = self.hang_up(&reason) => {}
            () = shared.sessions.stopping() => {}
        }
    }

    /// Says why, and waits until the device has heard it; at most `close_timeout`.
    async fn hang_up(mut self, reason: &CloseReason) {
        let deadline = Instant::now() + self.shared.config.close_timeout;
        let is_clean = timeout_at(deadline, self.say_goodbye(reason))
            .await
            .unwrap_or(false);
        if is_clean && let Ok(Ok(stream)) = timeout_at(deadline, self.socket.end()).await {
            linger(stream, deadline, &self.shared.limits.lingering).await;
        }
        drop(self.permits);
    }

    /// Sends the close frame, or the answer to the device's. `false` when there is nobody to hear it.
    async fn say_goodbye(&mut self, reason: &CloseReason) -> bool {
        let said = match reason {
            CloseReason::Lost | CloseReason::NoLife => false,
            CloseReason::ByDevice(code) => {
                let code = *code;
                poll_fn(|cx| Poll::Ready(self.socket.answer_close(cx, code)))
                    .await
                    .is_ok()
            }
            reason => {
                let code = reason.code().unwrap_or(1000);
                poll_fn(|cx| Poll::Ready(self.socket.close(cx, code, reason.as_str())))
                    .await
                    .is_ok()
            }
        };
        said && poll_fn(|cx| self.socket.poll_flush(cx)).await.is_ok()
    }
}
