//! What is logged: from which level on, and how much of payloads. It can change while the program runs.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering::Relaxed},
};

use super::{Level, Payloads};

/// What is logged now.
#[derive(Debug)]
pub(super) struct Filter {
    level: AtomicU8,
    payloads: AtomicU8,
}

impl Filter {
    pub(super) fn new(level: Level, payloads: Payloads) -> Arc<Self> {
        Arc::new(Self {
            level: AtomicU8::new(level as u8),
            payloads: AtomicU8::new(payloads as u8),
        })
    }

    /// The least important lines that are shown.
    pub(super) fn level(&self) -> Level {
        Level::ALL[usize::from(self.level.load(Relaxed))]
    }

    /// What becomes of payloads.
    pub(super) fn payloads(&self) -> Payloads {
        Payloads::ALL[usize::from(self.payloads.load(Relaxed))]
    }

    /// Whether the log's own trouble is shown.
    pub(super) fn tells(&self) -> bool {
        self.level() >= Level::Warn
    }

    /// Changes it. Returns whether that is another level.
    pub(super) fn set(&self, level: Level, payloads: Payloads) -> bool {
        self.payloads.store(payloads as u8, Relaxed);
        self.level.swap(level as u8, Relaxed) != level as u8
    }
}
