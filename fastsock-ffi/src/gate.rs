//! Whether hooks may run: what stop closes behind itself.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

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
    is_running: bool,
    is_finished: bool,
}

impl Gate {
    /// Lets one hook begin; `false` once shut.
    pub(crate) fn enter(&self) -> bool {
        let mut state = self.state.lock();
        state.is_running = !state.is_shut;
        state.is_running
    }

    pub(crate) fn leave(&self) {
        self.state.lock().is_running = false;
    }

    pub(crate) fn finish(&self) {
        self.state.lock().is_finished = true;
        self.finished.notify_all();
    }

    /// Waits for the end of the hooks' thread; then, or at the latest when the time is over, no further hook begins.
    ///
    /// # Errors
    /// `TIMEOUT` when a hook is still running.
    pub(crate) fn wait_finished(&self, until: Instant, has_no_thread: bool) -> Result<(), Failure> {
        let mut state = self.state.lock();
        while !state.is_finished && !has_no_thread {
            if self.finished.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        state.is_shut = true;
        if state.is_finished || has_no_thread {
            return Ok(());
        }
        if !state.is_running {
            // Between two hooks: it sees that the gate is shut and ends without calling another.
            self.finished.wait_for(&mut state, BETWEEN_HOOKS);
            if state.is_finished {
                return Ok(());
            }
        }
        Err(Failure::new(
            fastsock_status::TIMEOUT,
            "a hook is still running",
        ))
    }
}

/// How long the way from one hook to the next may take on a busy machine.
const BETWEEN_HOOKS: Duration = Duration::from_secs(1);
