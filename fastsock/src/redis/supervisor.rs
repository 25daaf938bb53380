//! Keeping a link for ever: connect, serve it until trouble, wait, again.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::error::{DENIED_DELAY, LinkError};
use crate::pure::backoff::Backoff;

/// A link, as its supervisor knows it.
pub(crate) trait Supervised {
    /// Connects, and serves one connection to its end. `Ok` when told to stop and nothing is left to do.
    fn serve(&mut self) -> impl Future<Output = Result<(), LinkError>> + Send;

    /// The link is lost, or could not be had. Returns whether it had been up.
    fn down(&mut self, error: &LinkError) -> bool;

    /// Whether no other try is to be made.
    fn is_over(&self) -> bool {
        false
    }

    /// Resolves when the next try need not wait any longer.
    fn wake(&self, error: &LinkError) -> impl Future<Output = ()> + Send {
        let _ = error;
        std::future::pending()
    }
}

/// Keeps a link until it has served to the end, or `cut` ends it wherever it is.
pub(crate) async fn supervise(link: &mut impl Supervised, cut: &CancellationToken) {
    let mut failures = 0;
    loop {
        let began = Instant::now();
        let served = tokio::select! {
            biased;
            () = cut.cancelled() => return,
            served = link.serve() => served,
        };
        let Err(error) = served else {
            return;
        };
        // One that was up for a moment only is tried as rarely as one that cannot be had.
        let lasted = began.elapsed() > SHORT;
        failures = if link.down(&error) && lasted {
            1
        } else {
            failures + 1
        };
        if link.is_over() {
            return;
        }
        let delay = if error.is_denied {
            DENIED_DELAY
        } else {
            BACKOFF.delay(failures)
        };
        tokio::select! {
            () = cut.cancelled() => return,
            () = link.wake(&error) => {}
            () = sleep(delay) => {}
        }
    }
}

const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));

/// A link that is lost so soon is no success.
const SHORT: Duration = Duration::from_secs(5);
