//! Draining: nobody new is let in, and those who are here are closed one after the other, so that they do not all come back
//! elsewhere at once.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{late, shared::Shared};
use crate::types::CloseReason;

/// Begins to drain over a window. `false` when that, or a stop, has begun before.
pub(crate) fn begin(shared: &Arc<Shared>, window: Duration) -> bool {
    if !shared.status.draining() {
        return false;
    }
    tracing::info!(
        devices = shared.registry.len(),
        window_ms = window.as_millis() as u64,
        "Draining"
    );
    shared.draining.cancel();
    shared.registry.close_entry();
    let of_task = shared.clone();
    shared.workers.spawn_until_stopped(async move {
        let is_over = CancellationToken::new();
        let closing = async {
            close_all(&of_task, window).await;
            is_over.cancel();
        };
        tokio::join!(closing, late::account_while_draining(&of_task, &is_over));
        tracing::info!("Drained");
        of_task.drained.cancel();
    });
    true
}

/// Closes all sessions, spread evenly over the window and in no order, and waits for them.
async fn close_all(shared: &Shared, window: Duration) {
    let mut seats = shared.registry.seats();
    fastrand::shuffle(&mut seats);
    let (start, count) = (Instant::now(), seats.len() as f64);
    for (n, seat) in seats.iter().enumerate() {
        sleep_until(start + window.mul_f64(n as f64 / count)).await;
        seat.close(CloseReason::Drain);
    }
    drop(seats);
    loop {
        shared.sessions.wait().await;
        if shared.registry.len() == 0 {
            return;
        }
        sleep(LATE_TIME).await; // a handshake that has its seat and not yet its session
    }
}

/// How soon a session that is about to begin is looked for again.
const LATE_TIME: Duration = Duration::from_millis(10);
