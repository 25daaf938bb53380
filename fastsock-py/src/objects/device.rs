//! A device that is connected, and one that wants to be.

use std::net::{IpAddr, SocketAddr};

use fastsock::SessionId;
use pyo3::{
    prelude::*,
    types::{PyBytes, PyDict, PyTuple},
};

use super::{
    Ticket,
    admission::{Context, parts},
    hash_of,
};
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
    #[pyo3(signature = (client_id, *, session_id=0, remote_addr=("127.0.0.1".into(), None), connected_at=None, last_seen=None, epoch=0),
        text_signature = "(client_id, *, session_id=0, remote_addr=('127.0.0.1', None), connected_at=None, last_seen=None, epoch=0)")]
    fn new(
        client_id: &str,
        session_id: u64,
        remote_addr: (String, Option<u16>),
        connected_at: Option<f64>,
        last_seen: Option<f64>,
        epoch: u64,
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
        client.epoch = epoch;
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
        keywords.set_item("epoch", self.epoch())?;
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

    /// Higher than those of the device's sessions before it, over all gateways that share a Redis and over restarts.
    #[getter]
    fn epoch(&self) -> u64 {
        self.0.epoch
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

    /// What else is known of the session, if there is more to know than its name. Not pickled.
    #[getter]
    fn context(&self) -> Option<Context> {
        Context::of(self.0.context.as_ref())
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

    /// The method: always GET.
    #[getter]
    fn method(&self) -> &'static str {
        self.request.method()
    }

    /// The path as sent, without the query. May hold a token: do not log it.
    #[getter]
    fn path(&self) -> &str {
        self.request.path()
    }

    /// The query as sent. May hold a token: do not log it.
    #[getter]
    fn query(&self) -> &str {
        self.request.query()
    }

    /// The named parts of the path by device_paths, percent-decoded. Nobody has confirmed them yet.
    #[getter]
    fn parts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        parts(py, &self.request.parts)
    }

    /// The client id that the parts form; the answer has to name the same one.
    #[getter]
    fn client_id(&self) -> Option<&str> {
        self.request
            .client_id
            .as_ref()
            .map(fastsock::ClientId::as_str)
    }

    /// The name of its route; None for the default one.
    #[getter]
    fn route(&self) -> Option<&str> {
        self.request.route.as_deref()
    }

    /// The subprotocols that the device offers, in its order, without fastsock-token.<token>.
    #[getter]
    fn subprotocols(&self) -> Vec<String> {
        self.request.subprotocols.clone()
    }

    /// User and password of "Authorization: Basic"; the password is bytes, which need not be UTF-8.
    #[getter]
    fn basic<'py>(&self, py: Python<'py>) -> Option<(&str, Bound<'py, PyBytes>)> {
        let basic = self.request.credentials.basic.as_ref()?;
        Some((&basic.user, PyBytes::new(py, &basic.password)))
    }

    /// The subject of a client certificate that TLS has checked.
    #[getter]
    fn tls_subject(&self) -> Option<&str> {
        let names = self.request.certificate_names.as_ref()?;
        Some(&names.subject)
    }

    /// The organisation in that subject, if there is exactly one.
    #[getter]
    fn tls_organization(&self) -> Option<&str> {
        self.request
            .certificate_names
            .as_ref()?
            .organization
            .as_deref()
    }

    /// The alternative names in the certificate.
    #[getter]
    fn tls_sans(&self) -> Vec<String> {
        let names = self.request.certificate_names.as_ref();
        names.map_or_else(Vec::new, |names| names.sans.clone())
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
