//! The signals that end the program.

use std::{io, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Waits for signals. From the first one made, the process no longer ends by them on its own.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Begins to take signals; those that come before [`Signals::stop`] is called are kept.
    pub(crate) fn take() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Resolves to the name of the next signal that asks to stop. Those that come with it are the same wish: timeout(1),
    /// for one, signals the process and then its whole group.
    ///
    /// # Cancel safety
    /// A signal may be lost if it is dropped in the moment after it came.
    pub(crate) async fn stop(&mut self) -> &'static str {
        let name = self.next().await;
        let settled = tokio::time::sleep(SAME_WISH_TIME);
        tokio::pin!(settled);
        loop {
            tokio::select! {
                () = &mut settled => return name,
                _ = self.next() => {}
            }
        }
    }

    async fn next(&mut self) -> &'static str {
        loop {
            tokio::select! {
                Some(()) = self.terminate.recv() => return "SIGTERM",
                Some(()) = self.interrupt.recv() => return "SIGINT",
                Some(()) = self.hangup.recv() => {
                    tracing::info!("SIGHUP is ignored: there is nothing to reload");
                }
            }
        }
    }
}

/// How near signals are that mean one wish.
const SAME_WISH_TIME: Duration = Duration::from_millis(10);
