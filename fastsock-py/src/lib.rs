//! The native half of the Python package `fastsock`: `fastsock._fastsock`.
//!
//! Three kinds of threads, and one rule: the threads of the bridge's runtime never touch the interpreter. What they have to
//! say goes through bounded queues (`fastsock::events` and [`log`]) to whoever drains them with the interpreter attached:
//! the one dispatcher thread of a `Bridge`, or the event loop of an `AsyncBridge`.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]
#![allow(unreachable_pub, reason = "pyo3 wants what it exports to be pub")]

mod answer;
mod bridge;
mod command;
mod core;
mod dispatcher;
mod error;
mod fork;
mod hooks;
mod log;
mod loopside;
mod objects;
mod run;
mod settings;
mod signals;
mod words;

use pyo3::prelude::*;

/// The native half of the package fastsock. Import fastsock instead.
#[pymodule]
mod _fastsock {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::{
        bridge::Bridge,
        command::run_command,
        loopside::LoopBridge,
        objects::{
            Client, ConnectRequest, DropAction, Later, Leftover, Replace, Reply, Ticket, Uplink,
        },
        run::stop_all,
        settings::setting_table,
    };

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        crate::at_import(module.py())
    }
}

/// Sees to the end of the process and to forks.
fn at_import(py: Python<'_>) -> PyResult<()> {
    fork::watch();
    let stop_all = wrap_pyfunction!(run::stop_all, py)?;
    py.import("atexit")?.call_method1("register", (stop_all,))?;
    Ok(())
}
