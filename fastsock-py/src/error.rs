//! Errors of the core as exceptions: one class per kind, defined in `fastsock/errors.py`.

use fastsock::{Error, ErrorKind};
use pyo3::{call::PyCallArgs, prelude::*, types::PyType};

/// An error of the core as the exception of its kind, with the error number of the system if there is one.
pub(crate) fn raised(error: &Error) -> PyErr {
    let name = match error.kind() {
        ErrorKind::Config => "ConfigError",
        ErrorKind::Bind => "BindError",
        ErrorKind::NotConnected => "NotConnectedError",
        ErrorKind::Busy => "BusyError",
        ErrorKind::Unanswered => "UnansweredError",
        ErrorKind::OutboxFull => "OutboxFullError",
        ErrorKind::TooLarge => "TooLargeError",
        ErrorKind::Broker => "BrokerError",
        ErrorKind::Stopped => "StoppedError",
        ErrorKind::Ticket => "TicketError",
        ErrorKind::Argument => "ArgumentError",
        ErrorKind::Io => "OsError",
        _ => "FastsockError",
    };
    let line = error.to_line();
    match (os_error(error), error.kind()) {
        (Some(number), ErrorKind::Bind | ErrorKind::Broker | ErrorKind::Io) => {
            exception(name, (number, line))
        }
        _ => exception(name, (line,)),
    }
}

/// An exception of `fastsock/errors.py`.
pub(crate) fn exception(name: &str, args: impl for<'py> PyCallArgs<'py>) -> PyErr {
    Python::attach(|py| {
        let made = class(py, name).and_then(|class| class.call1(args));
        made.map_or_else(|error| error, PyErr::from_value)
    })
}

/// An argument that is not allowed.
pub(crate) fn bad_argument(text: impl Into<String>) -> PyErr {
    exception("ArgumentError", (text.into(),))
}

/// A call on a bridge that is not running.
pub(crate) fn not_running() -> PyErr {
    exception("StoppedError", ("the bridge is not running",))
}

/// A call in the child of the process that started the bridge.
pub(crate) fn forked() -> PyErr {
    let text =
        "the bridge was started in the parent of this process; its threads are not in this one";
    exception("ForkedError", (text,))
}

/// A class of `fastsock/errors.py`.
pub(crate) fn class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyType>> {
    Ok(py.import("fastsock.errors")?.getattr(name)?.cast_into()?)
}

/// Tells of an exception that nobody catches: to `on_error`, or to `sys.unraisablehook`.
pub(crate) fn report(
    py: Python<'_>,
    error: PyErr,
    name: &str,
    hook: Option<&Bound<'_, PyAny>>,
    on_error: Option<&Bound<'_, PyAny>>,
) {
    let Some(on_error) = on_error else {
        return error.write_unraisable(py, hook);
    };
    if let Err(failed) = on_error.call1((name, error.value(py))) {
        error.write_unraisable(py, hook);
        failed.write_unraisable(py, Some(on_error));
    }
}

fn os_error(error: &Error) -> Option<i32> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.raw_os_error();
        }
        cause = error.source();
    }
    None
}
