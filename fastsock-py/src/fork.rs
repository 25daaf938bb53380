//! Notices that this process is a child of the one that started a bridge: the bridge's threads are not in it.

use std::sync::{
    Once,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// The process in which something was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process(u64);

impl Process {
    /// This one.
    pub(crate) fn current() -> Self {
        Self(FORKS.load(Relaxed))
    }

    /// Whether it is this one. Costs one load.
    pub(crate) fn is_current(self) -> bool {
        self == Self::current()
    }
}

/// Counts forks from now on, also those that C code makes.
pub(crate) fn watch() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        // SAFETY: the handler only adds to an atomic, which is allowed in the child of a process with threads.
        unsafe { libc::pthread_atfork(None, None, Some(forked)) };
    });
}

extern "C" fn forked() {
    FORKS.fetch_add(1, Relaxed);
}

static FORKS: AtomicU64 = AtomicU64::new(0);
