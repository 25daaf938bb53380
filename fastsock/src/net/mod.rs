//! The network: the bytes of a connection, TLS, what a proxy says of a device, and the HTTP client.

pub(crate) mod http;
pub(crate) mod linger;
pub(crate) mod listen;
pub(crate) mod proxy;
pub(crate) mod racing;
#[cfg(feature = "tls")]
pub(crate) mod tls;
pub(crate) mod wire;

/// The name in a client certificate, if it has any, or why nobody can be sure of it.
pub(crate) type CertifiedName = Result<Option<String>, &'static str>;
