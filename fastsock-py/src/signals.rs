//! Keeps signals away from our threads: Python's handlers belong on its main thread.

use std::{mem::MaybeUninit, ptr};

/// Blocks all signals on this thread, except those that tell of its own faults, until dropped. Threads made meanwhile
/// inherit it.
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
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set was filled in by the kernel.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, ptr::null_mut()) };
    }
}

/// What the operating system does on a signal.
#[derive(Clone, Copy)]
pub(crate) struct Disposition(libc::sigaction);

impl Disposition {
    /// What it does now.
    pub(crate) fn of(signal: libc::c_int) -> Option<Self> {
        let mut action = MaybeUninit::uninit();
        // SAFETY: with a null new action it only fills in the old one.
        let result = unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) };
        // SAFETY: it was filled in, since the call succeeded.
        (result == 0).then(|| Self(unsafe { action.assume_init() }))
    }

    /// Makes it do this again.
    pub(crate) fn restore(&self, signal: libc::c_int) {
        // SAFETY: the action came from the operating system, so its handler is one that was installed before.
        unsafe { libc::sigaction(signal, &self.0, ptr::null_mut()) };
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
