//! A device that is connected, and one that wants to be.

use std::net::{IpAddr, SocketAddr};

use fastsock::SessionId;
use pyo3::{
    prelude::*,
    types::{PyDict, PyTuple},
};

use super::{Ticket, hash_of};
use crate::{
    argument::client_id,
    error::bad_argument,
    question::Question,
    time::{time_or, unix_seconds},
};

/// One connected device.
///
/// Equal when they are the same session, however much later one was asked for; can be pickled. Make one to try a hook:
/// Client("dev1").
#[pyclass(frozen, module = "fastsock")]
pub struct Client(pub(crate) fastsock::Client);

#[pymethods]
impl Client {
    #[new]
    #[pyo3(signature = (client_id, *, session_id=0, remote_addr=("127.0.0.1".into(), None), connected_at=None, last_seen=None),
        text_signature = "(client_id, *, session_id=0, remote_addr=('127.0.0.1', None), connected_at=None, last_seen=None)")]
    fn new(
        client_id: &str,
        session_id: u64,
        remote_addr: (String, Option<u16>),
        connected_at: Option<f64>,
        last_seen: Option<f64>,
    ) -> PyResult<Self> {
        let (host, port) = remote_addr;
        let host: IpAddr = host
            .parse()
            .map_err(|_| bad_argument(format!("{host:?} is not an IP address")))?;
        let mut client = fastsock::Client::new(
            self::client_id(client_id)?,
            SessionId(session_id),
            match port {
                Some(port) => SocketAddr::new(host, port).into(),
                None => host.into(),
            },
        );
        client.connected_at = time_or(connected_at, client.connected_at)?;
        client.last_seen = time_or(last_seen, client.connected_at)?;
        Ok(Self(client))
    }

    fn __eq__(&self, other: &Self) -> bool {
        (&self.0.client_id, self.0.session_id) == (&other.0.client_id, other.0.session_id)
    }

    fn __hash__(&self) -> u64 {
        hash_of((&self.0.client_id, self.0.session_id.0))
    }

    fn __getnewargs_ex__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        let args = (self.client_id(),).into_pyobject(py)?;
        let keywords = PyDict::new(py);
        keywords.set_item("session_id", self.session_id())?;
        keywords.set_item("remote_addr", self.remote_addr())?;
        keywords.set_item("connected_at", self.connected_at())?;
        keywords.set_item("last_seen", self.last_seen())?;
        Ok((args, keywords))
    }

    /// Its name, stable across reconnects.
    #[getter]
    fn client_id(&self) -> &str {
        self.0.client_id.as_str()
    }

    /// The session; never reused.
    #[getter]
    fn session_id(&self) -> u64 {
        self.0.session_id.0
    }

    /// Where it connects from: (host, port). The port is None where a proxy sent none.
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

    /// When it last sent a message, in seconds since 1970; the connect counts.
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

/// The head of a device's WebSocket request, and the credentials that it shows.
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

    /// Where the connection comes from: (host, port). The port is None where a proxy sent none.
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
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket {
            ticket: self.ticket,
            question: Question::Authenticate,
        }
    }

    fn __repr__(&self) -> String {
        format!("<ConnectRequest from {}>", self.request.remote_addr)
    }
}
