//! Keeps the host's signals away from our threads.

use std::{mem::MaybeUninit, ptr};

/// Blocks all signals on this thread, except those that tell of its own faults, until dropped.
///
/// A host's handlers are written for the host's threads; and a vectored write to a closed peer raises SIGPIPE, which by
/// default ends the process. A thread inherits the mask of the one that makes it, so threads made meanwhile never have a
/// moment without it.
pub(crate) struct Blocked(libc::sigset_t);

impl Blocked {
    pub(crate) fn new() -> Self {
        let mut before = MaybeUninit::uninit();
        // SAFETY: `sigfillset` initialises the set; both sets live on this stack.
        unsafe {
            let mut set = MaybeUninit::uninit();
            libc::sigfillset(set.as_mut_ptr());
            let mut set = set.assume_init();
            for signal in OWN_FAULTS {
                libc::sigdelset(&mut set, signal);
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, &set, before.as_mut_ptr());
            Self(before.assume_init())
        }
    }

    /// Blocks them for the whole life of this thread.
    pub(crate) fn for_good() {
        std::mem::forget(Self::new());
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set was filled in by the kernel.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, ptr::null_mut()) };
    }
}

/// Blocking these would turn a crash with a handler into one without.
const OWN_FAULTS: [libc::c_int; 7] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGABRT,
];
