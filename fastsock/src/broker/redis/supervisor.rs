//! Keeping a link for ever, and saying what is wrong with it when that changes.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Shared, links::Kind, subscribe, writer};
use crate::{
    pure::backoff::Backoff,
    redis::{error::LinkError, trouble::DENIED_DELAY},
};

/// Keeps a link for ever: connect, serve it until trouble, tell, wait, again.
pub(super) async fn supervise(shared: Arc<Shared>, kind: Kind) {
    let mut log = ErrorLog::default();
    let mut failures = 0;
    loop {
        let began = Instant::now();
        let served = async {
            match kind {
                Kind::Cmd => writer::serve(&shared).await, // has to write what is left when told to stop
                Kind::Sub => tokio::select! {
                    () = shared.stop.cancelled() => Ok(()),
                    served = subscribe::serve(&shared) => served,
                },
            }
        };
        let error = tokio::select! {
            biased;
            () = shared.cut.cancelled() => break,
            served = served => match served {
                Ok(()) => break, // told to stop, and done
                Err(error) => error,
            },
        };
        // Before the link is down: whoever is refused because of that is told why.
        shared.trouble.lock()[kind as usize].clone_from(&error.text);
        // One that was up for a moment only is tried as rarely as one that cannot be had.
        let lasted = began.elapsed() > SHORT;
        failures = match shared.link_down(kind) && lasted {
            true => 1,
            false => failures + 1,
        };
        log.record(&shared, kind, &error);
        if shared.stop.is_cancelled() {
            break; // one failure is enough then
        }
        let delay = if error.is_denied {
            DENIED_DELAY
        } else {
            BACKOFF.delay(failures)
        };
        tokio::select! {
            () = shared.cut.cancelled() => break,
            () = shared.stop.cancelled() => {} // one last try
            // When the other link has come up, this one can too.
            () = shared.wake(kind).notified(), if !error.is_denied => {}
            () = tokio::time::sleep(delay) => {}
        }
    }
    shared.link_down(kind);
}

/// Logs an error when it changes, not each time it happens.
#[derive(Default)]
struct ErrorLog {
    last: Option<String>,
    ups: u64,
}

impl ErrorLog {
    fn record(&mut self, shared: &Shared, kind: Kind, error: &LinkError) {
        if shared.is_alone() {
            if kind == Kind::Cmd && self.last.is_none() {
                self.last = Some(error.text.clone());
                tracing::warn!(
                    error = %error,
                    "Redis does not answer: running with the embedded broker, which reaches the devices of this process \
                     only. Redis is used from the moment it answers. To choose, set REDIS_HOST or FASTSOCK_REDIS_URL, \
                     or FASTSOCK_BROKER=redis or embedded"
                );
            }
            return;
        }
        // A link that was up meanwhile makes the same words news again.
        let ups = shared.links.lock().ups(kind);
        if self.ups == ups && self.last.as_deref() == Some(&error.text) {
            return;
        }
        self.ups = ups;
        self.last = Some(error.text.clone());
        match kind {
            Kind::Cmd => {
                tracing::error!(name: "redis_error", error = %error, "Redis error for publisher");
            }
            Kind::Sub => {
                tracing::error!(name: "redis_error", error = %error, "Redis error for subscriber");
            }
        }
    }
}

const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));

/// A link that is lost so soon is no success.
const SHORT: Duration = Duration::from_secs(5);
