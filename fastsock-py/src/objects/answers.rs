//! What hooks return, the tickets of those that answer later, and what a stop left.

use pyo3::{
    prelude::*,
    types::{PyDict, PyTuple},
};

use super::{hash_of, said};
use crate::{argument::payload, question::Question};

/// A decision that is still open: what resolve() takes.
#[pyclass(frozen, eq, hash, module = "fastsock")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    pub(crate) ticket: fastsock::Ticket,
    pub(crate) question: Question,
}

#[pymethods]
impl Ticket {
    fn __repr__(&self) -> String {
        format!("<Ticket {} of {}>", self.ticket.0, self.question.name())
    }
}

/// What stop() left; false when everything was delivered in time.
#[pyclass(frozen, eq, module = "fastsock")]
#[derive(PartialEq)]
pub struct Leftover(pub(crate) fastsock::Leftover);

#[pymethods]
impl Leftover {
    #[new]
    #[pyo3(signature = (*, sessions=0, uplinks=0, presence=0, events=0, spooled=0))]
    fn new(sessions: u64, uplinks: u64, presence: u64, events: u64, spooled: u64) -> Self {
        let mut leftover = fastsock::Leftover::default();
        (leftover.sessions, leftover.uplinks) = (sessions, uplinks);
        (leftover.presence, leftover.events) = (presence, events);
        leftover.spooled = spooled;
        Self(leftover)
    }

    /// Sessions cut without waiting for their close handshake.
    #[getter]
    fn sessions(&self) -> u64 {
        self.0.sessions
    }

    /// Uplinks that were not delivered: lost with the reason "shutdown".
    #[getter]
    fn uplinks(&self) -> u64 {
        self.0.uplinks
    }

    /// Presence entries that Redis may still hold.
    #[getter]
    fn presence(&self) -> u64 {
        self.0.presence
    }

    /// Lifecycle events that were not delivered.
    #[getter]
    fn events(&self) -> u64 {
        self.0.events
    }

    /// Uplinks that a durable spool keeps for the next start; bool() ignores them.
    #[getter]
    fn spooled(&self) -> u64 {
        self.0.spooled
    }

    fn __bool__(&self) -> bool {
        !self.0.is_empty()
    }

    fn __getnewargs_ex__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        let keywords = PyDict::new(py);
        keywords.set_item("sessions", self.0.sessions)?;
        keywords.set_item("uplinks", self.0.uplinks)?;
        keywords.set_item("presence", self.0.presence)?;
        keywords.set_item("events", self.0.events)?;
        keywords.set_item("spooled", self.0.spooled)?;
        Ok((PyTuple::empty(py), keywords))
    }

    fn __repr__(&self) -> String {
        let fastsock::Leftover {
            sessions,
            uplinks,
            presence,
            events,
            spooled,
            ..
        } = self.0;
        format!(
            "Leftover(sessions={sessions}, uplinks={uplinks}, presence={presence}, events={events}, spooled={spooled})"
        )
    }
}

/// Returned by on_uplink: the host takes the message, and the backend gets nothing. The class itself will do.
#[pyclass(frozen, eq, hash, name = "Drop", module = "fastsock")]
#[derive(PartialEq, Eq, Hash)]
pub struct DropAction;

#[pymethods]
impl DropAction {
    #[new]
    fn new() -> Self {
        Self
    }

    fn __repr__(&self) -> &'static str {
        "Drop()"
    }
}

/// Returned by a hook that answers later, through resolve(). The class itself will do.
#[pyclass(frozen, eq, hash, module = "fastsock")]
#[derive(PartialEq, Eq, Hash)]
pub struct Later;

#[pymethods]
impl Later {
    #[new]
    fn new() -> Self {
        Self
    }

    fn __repr__(&self) -> &'static str {
        "Later()"
    }
}

/// Returned by on_uplink: the bridge forwards this payload in place of the message.
#[pyclass(frozen, module = "fastsock")]
pub struct Replace(pub(crate) fastsock::Payload);

#[pymethods]
impl Replace {
    #[new]
    #[pyo3(signature = (payload))]
    fn new(payload: &Bound<'_, PyAny>) -> PyResult<Self> {
        self::payload(payload).map(Self)
    }

    /// What it holds: str if it is TEXT, bytes if BINARY.
    #[getter(payload)]
    fn held<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        said(py, &self.0)
    }

    fn __eq__(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    fn __hash__(&self) -> u64 {
        hash_of((self.0.is_text(), self.0.as_bytes()))
    }

    fn __getnewargs__<'py>(&self, py: Python<'py>) -> (Bound<'py, PyAny>,) {
        (said(py, &self.0),)
    }

    fn __repr__(&self) -> String {
        format!("<Replace by {} B>", self.0.len())
    }
}

/// Returned by on_uplink: this payload goes back to the device, and the backend gets nothing.
#[pyclass(frozen, module = "fastsock")]
pub struct Reply(pub(crate) fastsock::Payload);

#[pymethods]
impl Reply {
    #[new]
    #[pyo3(signature = (payload))]
    fn new(payload: &Bound<'_, PyAny>) -> PyResult<Self> {
        self::payload(payload).map(Self)
    }

    /// What it holds: str if it is TEXT, bytes if BINARY.
    #[getter(payload)]
    fn held<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        said(py, &self.0)
    }

    fn __eq__(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    fn __hash__(&self) -> u64 {
        hash_of((self.0.is_text(), self.0.as_bytes()))
    }

    fn __getnewargs__<'py>(&self, py: Python<'py>) -> (Bound<'py, PyAny>,) {
        (said(py, &self.0),)
    }

    fn __repr__(&self) -> String {
        format!("<Reply of {} B>", self.0.len())
    }
}
