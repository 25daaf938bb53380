//! The locks of the core: those of std, without poison.
//!
//! Not those of parking_lot: it keeps all waiting threads of a process in one table. A forked child inherits that with threads that it does not
//! have, at addresses that its own threads get; a bridge in such a child crashed or hung. A lock of std is a number of its own.

#[cfg(not(models))]
use std::sync;
use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

#[cfg(models)]
use shuttle::sync;

pub(crate) use sync::MutexGuard;

/// A lock that a panic of its holder does not poison: what it guards is whole between any two statements.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(sync::Mutex<T>);

/// The same for one writer or many readers.
#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(sync::RwLock<T>);

/// Where threads that hold a lock wait for a change.
#[derive(Debug, Default)]
pub(crate) struct Condvar(sync::Condvar);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(sync::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> sync::RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> sync::RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Waits to be woken, perhaps for nothing.
    pub(crate) fn wait<'a, T>(&self, held: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(held).unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, at the latest until then.
    #[cfg_attr(
        not(feature = "disk"),
        allow(dead_code, reason = "for what is kept on the disk")
    )]
    pub(crate) fn wait_until<'a, T>(
        &self,
        held: MutexGuard<'a, T>,
        until: Instant,
    ) -> MutexGuard<'a, T> {
        let time = until.saturating_duration_since(Instant::now());
        let waited = self.0.wait_timeout(held, time);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits for as long as the condition holds, at most for `time`.
    pub(crate) fn wait_while_for<'a, T>(
        &self,
        held: MutexGuard<'a, T>,
        time: Duration,
        condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        let waited = self.0.wait_timeout_while(held, time, condition);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }
}
