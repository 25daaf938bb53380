//! Whether hooks may run: what stop closes behind itself.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::status::{Failure, fastsock_status};

/// Whether hooks may run, and whether their thread has ended.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<GateState>,
    finished: Condvar,
}

#[derive(Default)]
struct GateState {
    is_shut: bool,
    /// When the hook that runs now began.
    running_since: Option<Instant>,
    /// The earliest deadline of those that wait for the end.
    stop_by: Option<Instant>,
    is_finished: bool,
}

impl Gate {
    /// Lets one hook begin; `false` once shut.
    pub(crate) fn enter(&self) -> bool {
        let mut state = lock(&self.state);
        state.running_since = (!state.is_shut).then(Instant::now);
        state.running_since.is_some()
    }

    pub(crate) fn leave(&self) {
        lock(&self.state).running_since = None;
    }

    pub(crate) fn finish(&self) {
        lock(&self.state).is_finished = true;
        self.finished.notify_all();
    }

    /// Waits for the end of the hooks' thread; then, or at the latest when the time is over, no further hook begins. The last
    /// notices, of the sessions that just ended, have a moment beyond the deadline; a hook that blocks has not.
    ///
    /// # Errors
    /// `TIMEOUT` when a hook is still running.
    pub(crate) fn wait_finished(
        &self,
        deadline: Instant,
        has_no_thread: bool,
    ) -> Result<(), Failure> {
        let last = deadline.max(Instant::now() + LAST_NOTICES);
        let mut state = lock(&self.state);
        if state.stop_by.is_none_or(|earliest| deadline < earliest) {
            state.stop_by = Some(deadline);
            self.finished.notify_all(); // others wait no longer than this one
        }
        while !state.is_finished && !has_no_thread {
            let stop_by = state.stop_by.unwrap_or(deadline);
            let until = match state.running_since {
                Some(since) => stop_by.max(since + BLOCKED).min(last),
                None => last,
            };
            let time = until.saturating_duration_since(Instant::now());
            if time.is_zero() {
                break;
            }
            state = self.wait(state, time);
        }
        state.is_shut = true;
        if state.is_finished || has_no_thread {
            return Ok(());
        }
        if state.running_since.is_none() {
            // Between two hooks: it sees that the gate is shut and ends without calling another.
            state = self.wait(state, BETWEEN_HOOKS);
            if state.is_finished {
                return Ok(());
            }
        }
        Err(Failure::new(
            fastsock_status::TIMEOUT,
            "a hook is still running",
        ))
    }

    /// Waits to be woken, perhaps for nothing.
    fn wait<'a>(
        &self,
        state: MutexGuard<'a, GateState>,
        time: Duration,
    ) -> MutexGuard<'a, GateState> {
        let waited = self.finished.wait_timeout(state, time);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Takes a lock, of which a panic of its holder says nothing. Locks of std are safe in a forked child; those of parking_lot are not.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long stop waits for hooks beyond its deadline.
const LAST_NOTICES: Duration = Duration::from_millis(500);
/// A hook that has run for so long when the deadline is over is not waited for.
const BLOCKED: Duration = Duration::from_millis(50);
/// How long the way from one hook to the next may take on a busy machine.
const BETWEEN_HOOKS: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_that_blocks_has_no_half_second_beyond_the_deadline() {
        let gate = Gate::default();
        assert!(gate.enter());
        let overrun = (0..5).map(|_| {
            let deadline = Instant::now();
            assert!(gate.wait_finished(deadline, false).is_err());
            deadline.elapsed()
        });
        // The least of five: a busy machine does not matter.
        assert!(overrun.min() < Some(LAST_NOTICES / 2));
    }
}
