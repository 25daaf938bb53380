//! The native half of the Python package `fastsock`: `fastsock._fastsock`.
//!
//! Three kinds of threads, and one rule: the threads of the bridge's runtime never touch the interpreter. What they have to
//! say goes through bounded queues (`fastsock::events` and [`log`]) to whoever drains them with the interpreter attached:
//! the one dispatcher thread of a `Bridge`, or the event loop of an `AsyncBridge`.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]
#![allow(unreachable_pub, reason = "pyo3 wants what it exports to be pub")]

mod answer;
mod argument;
mod bridge;
mod command;
mod core;
mod dispatcher;
mod error;
mod fork;
mod hooks;
mod locks;
mod log;
mod loopside;
mod objects;
mod question;
mod run;
mod settings;
mod signals;
mod time;
mod turn;
mod words;

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use pyo3::{exceptions::PyImportError, ffi, prelude::*};

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
            Accept, Client, ConnectRequest, Context, DeadLetter, DropAction, Later, Leftover,
            Replace, Reply, Ticket, Uplink,
        },
        run::stop_all,
        settings::setting_table,
    };

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::refuse_second_interpreter()?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        crate::at_import(module.py())
    }
}

/// Bridges, classes and the exit handler belong to one interpreter of the process.
fn refuse_second_interpreter() -> PyResult<()> {
    static FIRST: AtomicI64 = AtomicI64::new(-1);
    // SAFETY: called while a module is imported, so this thread is attached to an interpreter.
    let this = unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) };
    match FIRST.compare_exchange(-1, this, Relaxed, Relaxed) {
        Err(first) if first != this => Err(PyImportError::new_err(
            "fastsock does not support subinterpreters: another interpreter of this process has imported it",
        )),
        _ => Ok(()),
    }
}

/// Sees to the end of the process and to forks.
fn at_import(py: Python<'_>) -> PyResult<()> {
    fork::watch();
    let stop_all = wrap_pyfunction!(run::stop_all, py)?;
    py.import("atexit")?.call_method1("register", (stop_all,))?;
    Ok(())
}
