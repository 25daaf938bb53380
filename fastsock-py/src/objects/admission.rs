//! What a hook lets a device in with, and what is known of a session after that.

use std::{sync::Arc, time::SystemTime};

use pyo3::{
    intern,
    prelude::*,
    types::{PyDict, PyString},
};

use crate::{
    argument::client_id,
    error::bad_argument,
    time::{time_or, unix_seconds},
};

/// Returned by authenticate: the device connects under this client id, and this goes with it.
///
/// expires_at is in seconds since 1970. subprotocol is one that the device offers. metadata is a dict that JSON can hold, of at most
/// 4096 bytes as JSON; hooks and the backend get it.
#[pyclass(frozen, module = "fastsock")]
pub struct Accept(pub(crate) fastsock::Accepted);

#[pymethods]
impl Accept {
    #[new]
    #[pyo3(signature = (client_id, *, expires_at=None, groups=Vec::new(), subprotocol=None, metadata=None),
        text_signature = "(client_id, *, expires_at=None, groups=(), subprotocol=None, metadata=None)")]
    fn new(
        client_id: &str,
        expires_at: Option<f64>,
        groups: Vec<String>,
        subprotocol: Option<String>,
        metadata: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let mut accepted = fastsock::Accepted::new(self::client_id(client_id)?);
        accepted.expires_at = match expires_at {
            Some(_) => Some(time_or(expires_at, SystemTime::UNIX_EPOCH)?),
            None => None,
        };
        accepted.groups = groups;
        accepted.subprotocol = subprotocol;
        accepted.metadata = metadata.map(to_metadata).transpose()?;
        Ok(Self(accepted))
    }

    /// The client id under which it connects.
    #[getter(client_id)]
    fn id(&self) -> &str {
        self.0.client_id.as_str()
    }

    /// When the bridge closes it with 4501, in seconds since 1970.
    #[getter]
    fn expires_at(&self) -> Option<f64> {
        self.0.expires_at.map(unix_seconds)
    }

    /// Its groups.
    #[getter]
    fn groups(&self) -> Vec<String> {
        self.0.groups.clone()
    }

    /// The subprotocol to tell it.
    #[getter]
    fn subprotocol(&self) -> Option<&str> {
        self.0.subprotocol.as_deref()
    }

    /// What hooks and the backend get.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        from_metadata(py, self.0.metadata.as_ref())
    }

    fn __repr__(&self) -> String {
        format!("<Accept {:?}>", self.0.client_id.as_str())
    }
}

/// What is known of a session beside its name.
#[pyclass(frozen, module = "fastsock")]
pub struct Context(Arc<fastsock::Context>);

impl Context {
    pub(crate) fn of(context: Option<&Arc<fastsock::Context>>) -> Option<Self> {
        context.map(|context| Self(Arc::clone(context)))
    }
}

#[pymethods]
impl Context {
    /// The path of the request, without its query; a token in it is ***.
    #[getter]
    fn path(&self) -> &str {
        &self.0.path
    }

    /// The named parts of the path by device_paths.
    #[getter]
    fn parts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        parts(py, &self.0.parts)
    }

    /// The name of its route; None for the default one.
    #[getter]
    fn route(&self) -> Option<&str> {
        self.0.route.as_deref()
    }

    /// The subprotocol that the device was told.
    #[getter]
    fn subprotocol(&self) -> Option<&str> {
        self.0.subprotocol.as_deref()
    }

    /// Where it connected from: (host, port). The port is None where a proxy sent none.
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

    /// What whoever let it in says of it.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        from_metadata(py, self.0.metadata.as_ref())
    }

    /// Its groups by the word of whoever let it in.
    #[getter]
    fn groups(&self) -> Vec<String> {
        self.0.groups.clone()
    }

    /// The headers that remote_forward_headers names.
    #[getter]
    fn headers(&self) -> Vec<(String, String)> {
        self.0.headers.clone()
    }

    fn __repr__(&self) -> String {
        format!("<Context of {}>", self.0.path)
    }
}

/// Named parts as a dict.
pub(super) fn parts<'py>(py: Python<'py>, parts: &fastsock::Parts) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, value) in parts.iter() {
        dict.set_item(name, value)?;
    }
    Ok(dict)
}

fn to_metadata(dict: &Bound<'_, PyDict>) -> PyResult<fastsock::Metadata> {
    let py = dict.py();
    let text = py
        .import("json")?
        .call_method1(intern!(py, "dumps"), (dict,))?;
    let text = text.cast::<PyString>()?.to_cow()?.into_owned();
    let bad = |_| {
        bad_argument("metadata has more than 4096 bytes as JSON, or a number that JSON has not")
    };
    text.parse().map_err(bad)
}

fn from_metadata<'py>(
    py: Python<'py>,
    metadata: Option<&fastsock::Metadata>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let Some(metadata) = metadata else {
        return Ok(None);
    };
    let json = py.import("json")?;
    json.call_method1(intern!(py, "loads"), (metadata.as_str(),))
        .map(Some)
}
