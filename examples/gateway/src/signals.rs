//! The signals that end the program, the one that has it open its files again, and those that do nothing.

use std::{io, time::Duration};

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Waits for signals. From the first one made, the process no longer ends by them on its own.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user: [Signal; 2],
}

impl Signals {
    /// Begins to take signals; those that come before [`Signals::stop`] is called are kept.
    pub(crate) fn take() -> io::Result<Self> {
        // A file that may grow no more (`ulimit -f`) then is a write that fails, as on a full disk.
        let _ = signal(SignalKind::from_raw(Number::XFSZ.as_raw()))?;
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user: [
                signal(SignalKind::user_defined1())?,
                signal(SignalKind::user_defined2())?,
            ],
        })
    }

    /// Resolves to the name of the next signal that asks to stop. Those that come with it are the same wish: timeout(1),
    /// for one, signals the process and then its whole group. `reload` is called for each SIGHUP meanwhile.
    ///
    /// # Cancel safety
    /// A signal may be lost if it is dropped in the moment after it came.
    pub(crate) async fn stop(&mut self, reload: impl Fn()) -> &'static str {
        let name = self.next(&reload).await;
        let settled = tokio::time::sleep(SAME_WISH_TIME);
        tokio::pin!(settled);
        loop {
            tokio::select! {
                () = &mut settled => return name,
                _ = self.next(&reload) => {}
            }
        }
    }

    async fn next(&mut self, reload: &impl Fn()) -> &'static str {
        let [user1, user2] = &mut self.user;
        loop {
            let ignored = tokio::select! {
                Some(()) = self.terminate.recv() => return "SIGTERM",
                Some(()) = self.interrupt.recv() => return "SIGINT",
                Some(()) = self.hangup.recv() => {
                    reload();
                    continue;
                }
                Some(()) = user1.recv() => "SIGUSR1",
                Some(()) = user2.recv() => "SIGUSR2",
            };
            tracing::debug!(signal = ignored, "Signal is ignored");
        }
    }
}

/// How near signals are that mean one wish.
const SAME_WISH_TIME: Duration = Duration::from_millis(10);
