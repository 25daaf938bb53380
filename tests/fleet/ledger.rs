//! What was said, and what became of it: every message by device and number.

use std::{
    sync::atomic::{AtomicBool, AtomicU64},
    time::Instant,
};

use parking_lot::Mutex;

/// Of all devices.
pub(crate) struct Ledger {
    devices: Vec<Mutex<Book>>,
    /// Nothing new is published.
    pub(crate) is_quiet: AtomicBool,
    /// Everyone comes, also who sleeps, and nobody says anything new.
    pub(crate) is_gathering: AtomicBool,
    /// Who sleeps goes to sleep.
    pub(crate) is_settling: AtomicBool,
    pub(crate) connects: AtomicU64,
    /// Second sockets that were opened beside an open one.
    pub(crate) doubles: AtomicU64,
    pub(crate) refused: AtomicU64,
}

/// Of one device. Numbers count up from 0.
#[derive(Default)]
pub(crate) struct Book {
    /// Uplinks by number: when they were said, and on which of its sockets.
    pub(crate) said: Vec<(Instant, u64)>,
    /// Sockets so far.
    pub(crate) sockets: u64,
    /// Uplinks that the gateway has taken, and when the device knew.
    pub(crate) taken: Vec<(u64, Instant)>,
    /// Downlinks that were accepted to be kept, and when the publisher knew.
    pub(crate) kept: Vec<(u64, Instant)>,
    /// Kept downlinks as they came, also those that came again.
    pub(crate) received: Vec<u64>,
}

impl Ledger {
    pub(crate) fn new(devices: usize) -> Self {
        Self {
            devices: (0..devices).map(|_| Mutex::default()).collect(),
            is_quiet: AtomicBool::new(false),
            is_gathering: AtomicBool::new(false),
            is_settling: AtomicBool::new(false),
            connects: AtomicU64::new(0),
            doubles: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    pub(crate) fn of<T>(&self, device: usize, look: impl FnOnce(&mut Book) -> T) -> T {
        look(&mut self.devices[device].lock())
    }

    pub(crate) fn devices(&self) -> usize {
        self.devices.len()
    }
}
