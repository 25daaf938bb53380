//! The things hooks are given and give back, as Python sees them.

use std::{
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use pyo3::{
    prelude::*,
    sync::PyOnceLock,
    types::{PyBytes, PyString},
};

use crate::answer::{Question, payload};

/// One message from a device.
///
/// Attributes are made when they are read, so that a hook pays only for what it looks at.
#[pyclass(frozen, freelist = 64, module = "fastsock")]
pub struct Uplink {
    uplink: fastsock::Uplink,
    ticket: Option<fastsock::Ticket>,
    payload: PyOnceLock<Py<PyBytes>>,
}

impl Uplink {
    pub(crate) fn new(uplink: fastsock::Uplink, ticket: Option<fastsock::Ticket>) -> Self {
        Self {
            uplink,
            ticket,
            payload: PyOnceLock::new(),
        }
    }
}

#[pymethods]
impl Uplink {
    /// Who said it.
    #[getter]
    fn client_id(&self) -> &str {
        self.uplink.client_id.as_str()
    }

    /// The connection it came over; never reused.
    #[getter]
    fn session_id(&self) -> u64 {
        self.uplink.session_id.0
    }

    /// Its number within the session, from 1.
    #[getter]
    fn seq(&self) -> u64 {
        self.uplink.seq
    }

    /// What was said, as bytes.
    #[getter]
    fn payload(&self, py: Python<'_>) -> Py<PyBytes> {
        let make = || PyBytes::new(py, self.uplink.payload.as_bytes()).unbind();
        self.payload.get_or_init(py, make).clone_ref(py)
    }

    /// What was said, as text; what is not UTF-8 becomes U+FFFD.
    #[getter]
    fn text<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        PyString::new(py, &self.uplink.payload.to_text())
    }

    /// Whether it came as a TEXT message; otherwise it was BINARY.
    #[getter]
    fn is_text(&self) -> bool {
        self.uplink.payload.is_text()
    }

    /// A UUIDv7: the Idempotency-Key of every attempt to deliver it.
    #[getter]
    fn id(&self) -> String {
        self.uplink.id.to_string()
    }

    /// When it was read, in seconds since 1970 as time.time() counts.
    #[getter]
    fn received_at(&self) -> f64 {
        unix_seconds(self.uplink.received_at)
    }

    /// What Bridge.resolve() takes when the hook returns Later; None when there is nothing to decide.
    #[getter]
    fn ticket(&self) -> Option<Ticket> {
        self.ticket.map(|ticket| Ticket {
            ticket,
            question: Question::OnUplink,
        })
    }

    fn __len__(&self) -> usize {
        self.uplink.payload.len()
    }

    fn __bytes__(&self, py: Python<'_>) -> Py<PyBytes> {
        self.payload(py)
    }

    fn __repr__(&self) -> String {
        let kind = if self.is_text() { "text" } else { "binary" };
        format!(
            "<Uplink {} of {:?} session {}: {} B {kind}>",
            self.seq(),
            self.client_id(),
            self.session_id(),
            self.__len__()
        )
    }
}

/// An uplink that was given up, kept by a durable spool until it is replayed, dropped, or too old.
///
/// Attributes are made when they are read. Times are seconds since 1970.
#[pyclass(frozen, module = "fastsock")]
pub struct DeadLetter(pub(crate) fastsock::DeadLetter);

#[pymethods]
impl DeadLetter {
    /// The UUID of the uplink, which was the Idempotency-Key of every attempt: what the calls of a bridge take.
    #[getter]
    fn id(&self) -> String {
        self.0.uplink.id.to_string()
    }

    /// Who said it.
    #[getter]
    fn client_id(&self) -> &str {
        self.0.uplink.client_id.as_str()
    }

    /// The message itself.
    #[getter]
    fn uplink(&self) -> Uplink {
        Uplink::new(self.0.uplink.clone(), None)
    }

    /// What was said, as bytes.
    #[getter]
    fn payload<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.uplink.payload.as_bytes())
    }

    /// What was said, as text; what is not UTF-8 becomes U+FFFD.
    #[getter]
    fn text<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        PyString::new(py, &self.0.uplink.payload.to_text())
    }

    /// Why it was given up: "rejected", "poison" or "too_old".
    #[getter]
    fn reason(&self) -> &'static str {
        self.0.reason.as_str()
    }

    /// The HTTP status the backend answered last; None when it did not answer.
    #[getter]
    fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// What went wrong at last, in words.
    #[getter]
    fn error(&self) -> &str {
        &self.0.error
    }

    /// POSTs made of it since this process took it or found it in the spool.
    #[getter]
    fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// When it was read.
    #[getter]
    fn received_at(&self) -> f64 {
        unix_seconds(self.0.uplink.received_at)
    }

    /// When its first attempt began; None when there was none.
    #[getter]
    fn first_attempt_at(&self) -> Option<f64> {
        self.0.first_attempt_at.map(unix_seconds)
    }

    /// When its last attempt ended; None when there was none.
    #[getter]
    fn last_attempt_at(&self) -> Option<f64> {
        self.0.last_attempt_at.map(unix_seconds)
    }

    /// When it was given up.
    #[getter]
    fn given_up_at(&self) -> f64 {
        unix_seconds(self.0.given_up_at)
    }

    /// The headers of its last POST; values that may be secret are ***.
    #[getter]
    fn headers(&self) -> Vec<(String, String)> {
        self.0.headers.clone()
    }

    fn __repr__(&self) -> String {
        format!(
            "<DeadLetter {} of {:?}: {} after {} attempts>",
            self.id(),
            self.client_id(),
            self.reason(),
            self.attempts()
        )
    }
}

/// One connected device.
#[pyclass(frozen, module = "fastsock")]
pub struct Client(pub(crate) fastsock::Client);

#[pymethods]
impl Client {
    /// Its name, stable across reconnects.
    #[getter]
    fn client_id(&self) -> &str {
        self.0.client_id.as_str()
    }

    /// Its connection; never reused.
    #[getter]
    fn session_id(&self) -> u64 {
        self.0.session_id.0
    }

    /// Where it connects from: (host, port). The port is None where a proxy did not tell it.
    #[getter]
    fn remote_addr(&self) -> (String, Option<u16>) {
        let addr = self.0.remote_addr;
        (addr.ip().to_string(), addr.port())
    }

    /// When it connected, in seconds since 1970.
    #[getter]
    fn connected_at(&self) -> f64 {
        unix_seconds(self.0.connected_at)
    }

    /// When it last said something, in seconds since 1970; the connect counts.
    #[getter]
    fn last_seen(&self) -> f64 {
        unix_seconds(self.0.last_seen)
    }

    fn __repr__(&self) -> String {
        format!(
            "<Client {:?} session {} from {}>",
            self.client_id(),
            self.session_id(),
            self.0.remote_addr
        )
    }
}

/// What a device asked for: the head of its WebSocket request, and what it shows to be let in.
#[pyclass(frozen, module = "fastsock")]
pub struct ConnectRequest {
    request: fastsock::ConnectRequest,
    ticket: fastsock::Ticket,
}

impl ConnectRequest {
    pub(crate) fn new(request: fastsock::ConnectRequest, ticket: fastsock::Ticket) -> Self {
        Self { request, ticket }
    }
}

#[pymethods]
impl ConnectRequest {
    /// The request target as sent, path and query. May hold a token: do not log it.
    #[getter]
    fn target(&self) -> &str {
        &self.request.target
    }

    /// Header names (lower case) and values, in the order sent.
    #[getter]
    fn headers(&self) -> Vec<(String, String)> {
        self.request.headers.clone()
    }

    /// The first value of a header, by its name in any case; None when it was not sent.
    fn header(&self, name: &str) -> Option<&str> {
        self.request.header(&name.to_ascii_lowercase())
    }

    /// Where the connection comes from: (host, port). The port is None where a proxy did not tell it.
    #[getter]
    fn remote_addr(&self) -> (String, Option<u16>) {
        let addr = self.request.remote_addr;
        (addr.ip().to_string(), addr.port())
    }

    /// The token of the request target.
    #[getter]
    fn token(&self) -> Option<&str> {
        self.request.credentials.token.as_deref()
    }

    /// What follows "Authorization: Bearer".
    #[getter]
    fn bearer(&self) -> Option<&str> {
        self.request.credentials.bearer.as_deref()
    }

    /// The token of a subprotocol fastsock-token.<token>.
    #[getter]
    fn subprotocol(&self) -> Option<&str> {
        self.request.credentials.subprotocol.as_deref()
    }

    /// The name in a client certificate that TLS has checked.
    #[getter]
    fn certificate(&self) -> Option<&str> {
        self.request.credentials.certificate.as_deref()
    }

    /// What Bridge.resolve() takes when the hook returns Later.
    #[getter]
    fn ticket(&self) -> Ticket {
        Ticket {
            ticket: self.ticket,
            question: Question::Authenticate,
        }
    }

    fn __repr__(&self) -> String {
        format!("<ConnectRequest from {}>", self.request.remote_addr)
    }
}

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

/// What stop() left behind; false when everything was handed over in time.
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

    /// Uplinks that a durable spool keeps for the next start; bool() does not look at them.
    #[getter]
    fn spooled(&self) -> u64 {
        self.0.spooled
    }

    fn __bool__(&self) -> bool {
        !self.0.is_empty()
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

/// Returned by on_uplink: the host has taken it, nothing is forwarded. The class itself will do.
#[pyclass(frozen, name = "Drop", module = "fastsock")]
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
#[pyclass(frozen, module = "fastsock")]
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

/// Returned by on_uplink: this payload is forwarded in its place.
#[pyclass(frozen, module = "fastsock")]
pub struct Replace(pub(crate) fastsock::Payload);

#[pymethods]
impl Replace {
    #[new]
    #[pyo3(signature = (payload, /))]
    fn new(payload: &Bound<'_, PyAny>) -> PyResult<Self> {
        self::payload(payload).map(Self)
    }

    fn __repr__(&self) -> String {
        format!("<Replace by {} B>", self.0.len())
    }
}

/// Returned by on_uplink: nothing is forwarded, and this payload goes back to the device.
#[pyclass(frozen, module = "fastsock")]
pub struct Reply(pub(crate) fastsock::Payload);

#[pymethods]
impl Reply {
    #[new]
    #[pyo3(signature = (payload, /))]
    fn new(payload: &Bound<'_, PyAny>) -> PyResult<Self> {
        self::payload(payload).map(Self)
    }

    fn __repr__(&self) -> String {
        format!("<Reply of {} B>", self.0.len())
    }
}

/// Seconds since 1970.
pub(crate) fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

/// An address as Python's sockets have it.
pub(crate) fn host_port(addr: SocketAddr) -> (String, u16) {
    // A device on IPv4 comes through the dual-stack listener as ::ffff:a.b.c.d.
    (addr.ip().to_canonical().to_string(), addr.port())
}
