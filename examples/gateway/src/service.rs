//! What systemd hands over and is told: sockets that it keeps open over restarts, readiness, the watchdog. Started by anything else the
//! program finds none of that, and tells nobody.

use std::{
    io,
    net::TcpListener,
    time::{Duration, Instant},
};

use listenfd::ListenFd;
use sd_notify::NotifyState;

/// The socket that devices connect to, if it is handed over (`LISTEN_FDS`, sd_listen_fds(3)): the first one.
///
/// # Errors
/// When that is no TCP listener.
pub(crate) fn listener() -> io::Result<Option<TcpListener>> {
    ListenFd::from_env().take_tcp_listener(0)
}

/// Devices can connect.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// It ends, within this time.
pub(crate) fn stopping(within: Duration) {
    let within_us = u32::try_from(within.as_micros()).unwrap_or(u32::MAX);
    tell(&[
        NotifyState::Stopping,
        NotifyState::ExtendTimeoutUsec(within_us),
    ]);
}

/// Tells the watchdog again and again that the runtime runs. Never ends.
pub(crate) async fn keep_alive() -> ! {
    let interval = sd_notify::watchdog_enabled();
    loop {
        match interval {
            Some(interval) => {
                tell(&[NotifyState::Watchdog]);
                tokio::time::sleep(interval / 3).await;
            }
            None => std::future::pending::<()>().await,
        }
    }
}

/// As [`stopping`], again and again until so long after now: systemd counts from the last of these.
pub(crate) async fn keep_stopping(time: Duration) -> ! {
    let end = Instant::now() + time;
    loop {
        stopping(
            end.saturating_duration_since(Instant::now())
                .min(LONGEST_EXTENSION),
        );
        tokio::time::sleep(LONGEST_EXTENSION / 3).await;
    }
}

fn tell(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states); // nobody is there to hear of it
}

/// What systemd is asked for at once: some 71 minutes would be the most that the message can say.
const LONGEST_EXTENSION: Duration = Duration::from_secs(30);
