//! What the core says of itself, as the small classes of `fastsock/words.py`: texts that know a little more.

use fastsock::{CloseReason, State};
use pyo3::{intern, prelude::*};

use crate::time::unix_seconds;

/// A `CloseReason`: a `str` with the close code.
pub(crate) fn close_reason<'py>(
    py: Python<'py>,
    reason: &CloseReason,
) -> PyResult<Bound<'py, PyAny>> {
    let code = match reason {
        CloseReason::ByDevice(code) => Some(*code),
        reason => reason.code(),
    };
    let module = py.import(intern!(py, "fastsock.words"))?;
    module.call_method1(intern!(py, "CloseReason"), (reason.as_str(), code))
}

/// A `State`: a `str` with the span of a gap.
pub(crate) fn state<'py>(py: Python<'py>, state: &State) -> PyResult<Bound<'py, PyAny>> {
    let gap = match state {
        State::Gap { from, to } => Some((unix_seconds(*from), unix_seconds(*to))),
        _ => None,
    };
    let module = py.import(intern!(py, "fastsock.words"))?;
    module.call_method1(intern!(py, "State"), (state.as_str(), gap))
}
