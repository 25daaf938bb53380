//! What a device said: an uplink, and one that was given up.

use fastsock::SessionId;
use pyo3::{
    intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyBytes, PyDict, PyString, PyTuple},
};

use super::{Ticket, admission::Context, hash_of, said};
use crate::{
    argument::{client_id, payload},
    error::bad_argument,
    question::Question,
    time::{time_or, unix_seconds},
};

/// One message from a device.
///
/// Attributes are made when they are read, so that a hook pays only for what it looks at. Equal when they are the same message;
/// can be pickled, without its ticket. Make one to try a hook: Uplink("dev1", "text").
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
    #[new]
    #[pyo3(signature = (client_id, payload, *, session_id=0, seq=1, id=None, received_at=None, epoch=0))]
    fn make(
        client_id: &str,
        payload: &Bound<'_, PyAny>,
        session_id: u64,
        seq: u64,
        id: Option<&str>,
        received_at: Option<f64>,
        epoch: u64,
    ) -> PyResult<Self> {
        let (client_id, payload) = (self::client_id(client_id)?, self::payload(payload)?);
        let mut uplink = fastsock::Uplink::new(client_id, SessionId(session_id), seq, payload);
        if let Some(id) = id {
            let text = || bad_argument(format!("{id:?} is not the id of an uplink, a UUID"));
            uplink.id = id.parse().map_err(|_| text())?;
        }
        uplink.epoch = epoch;
        uplink.received_at = time_or(received_at, uplink.received_at)?;
        Ok(Self::new(uplink, None))
    }

    /// The device that sent it.
    #[getter]
    fn client_id(&self) -> &str {
        self.uplink.client_id.as_str()
    }

    /// The session over which it came; never reused.
    #[getter]
    fn session_id(&self) -> u64 {
        self.uplink.session_id.0
    }

    /// The epoch of that session, higher than those of the device's sessions before it, over all gateways that share a Redis and over
    /// restarts.
    #[getter]
    fn epoch(&self) -> u64 {
        self.uplink.epoch
    }

    /// What is known of the session that sent it, if there is more to know than its name. Not pickled.
    #[getter]
    fn context(&self) -> Option<Context> {
        Context::of(self.uplink.context.as_ref())
    }

    /// Its number within the session, from 1.
    #[getter]
    fn seq(&self) -> u64 {
        self.uplink.seq
    }

    /// The message as bytes.
    #[getter]
    fn payload(&self, py: Python<'_>) -> Py<PyBytes> {
        let make = || PyBytes::new(py, self.uplink.payload.as_bytes()).unbind();
        self.payload.get_or_init(py, make).clone_ref(py)
    }

    /// The message as text; what is not UTF-8 becomes U+FFFD.
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

    /// When the bridge read it, in seconds since 1970 as time.time() counts.
    #[getter]
    fn received_at(&self) -> f64 {
        unix_seconds(self.uplink.received_at)
    }

    /// What Bridge.resolve() takes when the hook returns Later; None when there is nothing to decide.
    #[getter]
    pub(crate) fn ticket(&self) -> Option<Ticket> {
        self.ticket.map(|ticket| Ticket {
            ticket,
            question: Question::OnUplink,
        })
    }

    /// The message as json.loads() reads it.
    fn json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let loads = py
            .import(intern!(py, "json"))?
            .getattr(intern!(py, "loads"))?;
        loads.call1((self.payload(py),))
    }

    fn __len__(&self) -> usize {
        self.uplink.payload.len()
    }

    /// An empty message is a message.
    fn __bool__(&self) -> bool {
        true
    }

    fn __eq__(&self, other: &Self) -> bool {
        let (one, two) = (&self.uplink, &other.uplink);
        one.id == two.id
            && (&one.client_id, one.session_id, one.seq)
                == (&two.client_id, two.session_id, two.seq)
            && one.payload == two.payload
    }

    fn __hash__(&self) -> u64 {
        hash_of(self.uplink.id)
    }

    fn __getnewargs_ex__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        let args = (self.client_id(), said(py, &self.uplink.payload)).into_pyobject(py)?;
        let keywords = PyDict::new(py);
        keywords.set_item("session_id", self.session_id())?;
        keywords.set_item("seq", self.seq())?;
        keywords.set_item("id", self.id())?;
        keywords.set_item("received_at", self.received_at())?;
        keywords.set_item("epoch", self.epoch())?;
        Ok((args, keywords))
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

/// An uplink that the bridge gave up and keeps until you replay or drop it, or it is too old.
///
/// Attributes are made when they are read. Times are seconds since 1970.
#[pyclass(frozen, module = "fastsock")]
pub struct DeadLetter(pub(crate) fastsock::DeadLetter);

#[pymethods]
impl DeadLetter {
    /// The UUID of the uplink, which was the Idempotency-Key of every attempt. The calls of a bridge take it.
    #[getter]
    fn id(&self) -> String {
        self.0.uplink.id.to_string()
    }

    /// The device that sent it.
    #[getter]
    fn client_id(&self) -> &str {
        self.0.uplink.client_id.as_str()
    }

    /// The message itself.
    #[getter]
    fn uplink(&self) -> Uplink {
        Uplink::new(self.0.uplink.clone(), None)
    }

    /// The message as bytes.
    #[getter]
    fn payload<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.uplink.payload.as_bytes())
    }

    /// The message as text; what is not UTF-8 becomes U+FFFD.
    #[getter]
    fn text<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        PyString::new(py, &self.0.uplink.payload.to_text())
    }

    /// Why the bridge gave it up: "rejected", "poison" or "too_old".
    #[getter]
    fn reason(&self) -> &'static str {
        self.0.reason.as_str()
    }

    /// The HTTP status of the last attempt; None when the backend did not answer.
    #[getter]
    fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// What went wrong in the last attempt, in words.
    #[getter]
    fn error(&self) -> &str {
        &self.0.error
    }

    /// POSTs made of it since this process took it or found it in the spool.
    #[getter]
    fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// When the bridge read it.
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

    /// When the bridge gave it up.
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
