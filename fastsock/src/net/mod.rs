//! The network: the bytes of a connection, TLS, what a proxy says of a device, and the HTTP client.

pub(crate) mod http;
pub(crate) mod linger;
pub(crate) mod listen;
pub(crate) mod proxy;
pub(crate) mod racing;
#[cfg(feature = "tls")]
pub(crate) mod tls;
pub(crate) mod wire;

use crate::context::CertificateNames;

/// What a client certificate says of its device.
#[derive(Debug)]
pub(crate) struct Certified {
    /// The name that counts, if it has any, or why nobody can be sure of it.
    pub(crate) name: Result<Option<String>, &'static str>,
    /// All names; `None` when no certificate was shown.
    pub(crate) names: Option<Box<CertificateNames>>,
}

impl Certified {
    /// No certificate was shown.
    pub(crate) const NONE: Self = Self {
        name: Ok(None),
        names: None,
    };
}
