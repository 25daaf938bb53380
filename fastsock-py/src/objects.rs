//! The things hooks are given and give back, as Python sees them.

mod answers;
mod device;
mod message;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use pyo3::{
    prelude::*,
    types::{PyBytes, PyString},
};

pub use self::{
    answers::{DropAction, Later, Leftover, Replace, Reply, Ticket},
    device::{Client, ConnectRequest},
    message::{DeadLetter, Uplink},
};
use crate::error::bad_argument;

/// A payload as it can be sent again.
fn said<'py>(py: Python<'py>, payload: &fastsock::Payload) -> Bound<'py, PyAny> {
    match payload.is_text() {
        true => PyString::new(py, &payload.to_text()).into_any(),
        false => PyBytes::new(py, payload.as_bytes()).into_any(),
    }
}

/// The same for equal values, in every process.
fn hash_of(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A time in seconds since 1970, if one is given.
fn time_or(seconds: Option<f64>, otherwise: SystemTime) -> PyResult<SystemTime> {
    let Some(seconds) = seconds else {
        return Ok(otherwise);
    };
    let since = Duration::try_from_secs_f64(seconds).ok();
    since
        .and_then(|since| UNIX_EPOCH.checked_add(since))
        .ok_or_else(|| {
            bad_argument(format!(
                "a time is 0 or more seconds since 1970, not {seconds}"
            ))
        })
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
