//! The `fastsock` command: the gateway, in this process.

use std::{ffi::OsString, process::ExitCode};

use pyo3::prelude::*;

use crate::{locks::Mutex, signals::Disposition};

/// Runs the gateway with these arguments, of which the first is the program's name, until a signal ends it; returns the
/// exit code. The interpreter is let go meanwhile. `fastsock.__main__` sees to Python's own signal handlers.
#[pyfunction]
#[pyo3(name = "_run_command")]
pub fn run_command(py: Python<'_>, args: Vec<OsString>) -> u8 {
    let code = py.detach(|| {
        let _taken = Taken::again();
        fastsock_gateway::run(args)
    });
    u8::from(code != ExitCode::SUCCESS)
}

/// The signals of the gateway. Its runtime takes each only once in a process, so what it installed then is kept here and
/// put back for a second run.
struct Taken;

impl Taken {
    fn again() -> Self {
        for (signal, disposition) in SIGNALS.iter().zip(&*INSTALLED.lock()) {
            if let Some(disposition) = disposition {
                disposition.restore(*signal);
            }
        }
        Self
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        *INSTALLED.lock() = SIGNALS.map(Disposition::of);
    }
}

const SIGNALS: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];
static INSTALLED: Mutex<[Option<Disposition>; 3]> = Mutex::new([None; 3]);
