//! The descriptor that a host polls.

use std::{
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

/// A descriptor that is readable from `notify` to `clear`.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) struct Notifier(std::os::fd::OwnedFd);

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Notifier {
    pub(super) fn new() -> std::io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        Ok(Self(eventfd(
            0,
            EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        )?))
    }

    /// Cannot fail in a way that matters: EAGAIN means that it is readable already.
    pub(super) fn notify(&self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    pub(super) fn clear(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The same where there is no eventfd: a pair of sockets, which std makes non-blocking and close-on-exec.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) struct Notifier {
    reader: std::os::unix::net::UnixStream,
    writer: std::os::unix::net::UnixStream,
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Notifier {
    pub(super) fn new() -> std::io::Result<Self> {
        let (reader, writer) = std::os::unix::net::UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        Ok(Self { reader, writer })
    }

    pub(super) fn notify(&self) {
        let _ = rustix::io::write(&self.writer, &[1]);
    }

    /// One read is enough: notifications and clears alternate, but for a few that raced.
    pub(super) fn clear(&self) {
        let _ = rustix::io::read(&self.reader, &mut [0; 64]);
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

impl Notifier {
    /// Blocks until it is notified or the time is over; then `false`.
    pub(super) fn wait(&self, timeout: Duration) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let until = Instant::now().checked_add(timeout);
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            let fd = self.fd();
            match poll(&mut [PollFd::new(&fd, PollFlags::IN)], left.as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                answer => return answer.is_ok_and(|ready| ready > 0),
            }
        }
    }
}
