//! What Python hands in: client ids, payloads.

use fastsock::{ClientId, Payload};
use pyo3::{
    exceptions::PyTypeError,
    intern,
    prelude::*,
    types::{PyBytes, PyMemoryView, PyString},
};

use crate::error::bad_argument;

/// A client id from Python.
pub(crate) fn client_id(id: &str) -> PyResult<ClientId> {
    ClientId::new(id).ok_or_else(|| {
        bad_argument(format!(
            "a client id has 1 to {} bytes; this has {}",
            ClientId::MAX_BYTES,
            id.len()
        ))
    })
}

/// A payload from Python: `str` is TEXT, anything with the buffer protocol BINARY.
pub(crate) fn payload(object: &Bound<'_, PyAny>) -> PyResult<Payload> {
    if let Ok(text) = object.cast::<PyString>() {
        return Ok(Payload::text(text.to_cow()?));
    }
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(Payload::binary(bytes.as_bytes().to_vec()));
    }
    // The stable ABI has no buffers before 3.11, but a memoryview can make bytes of any.
    let view = PyMemoryView::from(object).map_err(|_| {
        PyTypeError::new_err(format!(
            "a payload is str or bytes-like, not {}",
            object.get_type()
        ))
    })?;
    let bytes = view.call_method0(intern!(object.py(), "tobytes"))?;
    Ok(Payload::binary(
        bytes.cast::<PyBytes>()?.as_bytes().to_vec(),
    ))
}
