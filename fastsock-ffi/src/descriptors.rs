//! Keeps our descriptors away from the places of stdin, stdout and stderr.

use std::{
    fs::OpenOptions,
    os::fd::{AsRawFd, IntoRawFd, RawFd},
};

/// Opens /dev/null in those of the descriptors 0 to 2 that the host has closed, for good: whoever in the process writes to
/// stdout would else write into a socket of ours. A descriptor of a later device could take such a place too, so moving those
/// of the start would not do.
pub(crate) fn occupy_standard() {
    // SAFETY: takes no pointer.
    if (0..=LAST).all(|fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0) {
        return;
    }
    // The lowest free number is taken first. Without /dev/null there is nothing to be done.
    while let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        if null.as_raw_fd() > LAST {
            break;
        }
        let _ = null.into_raw_fd();
    }
}

const LAST: RawFd = 2;
