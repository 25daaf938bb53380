//! The things hooks are given and give back, as Python sees them.

mod admission;
mod answers;
mod device;
mod message;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
};

use pyo3::{
    prelude::*,
    types::{PyBytes, PyString},
};

pub use self::{
    admission::{Accept, Context},
    answers::{DropAction, Later, Leftover, Replace, Reply, Ticket},
    device::{Client, ConnectRequest},
    message::{DeadLetter, Uplink},
};
/// A payload as it can be sent again.
fn said<'py>(py: Python<'py>, payload: &fastsock::Payload) -> Bound<'py, PyAny> {
    if payload.is_text() {
        PyString::new(py, &payload.to_text()).into_any()
    } else {
        PyBytes::new(py, payload.as_bytes()).into_any()
    }
}

/// The same for equal values, in every process.
fn hash_of(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// An address as Python's sockets have it.
pub(crate) fn host_port(addr: SocketAddr) -> (String, u16) {
    // A device on IPv4 comes through the dual-stack listener as ::ffff:a.b.c.d.
    (addr.ip().to_canonical().to_string(), addr.port())
}
