//! What a gateway under TLS and its devices need: a certificate for this run alone, and who trusts it.

use std::{
    fs,
    io::{self, Error},
    path::PathBuf,
    sync::Arc,
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tempfile::TempDir;

/// A certificate, and devices that trust it. Its files are gone when it is dropped.
pub(crate) struct Tls {
    dir: TempDir,
    /// What devices connect with. They resume nothing, as if each came for the first time.
    pub(crate) devices: Arc<ClientConfig>,
    /// What those connect with that go on from an earlier handshake where they can.
    pub(crate) returning: Arc<ClientConfig>,
}

impl Tls {
    pub(crate) fn new() -> io::Result<Self> {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed([format!("*.{DOMAIN}")]).map_err(Error::other)?;
        let dir = TempDir::new()?;
        fs::write(dir.path().join("cert.pem"), cert.pem())?;
        fs::write(dir.path().join("key.pem"), signing_key.serialize_pem())?;
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).map_err(Error::other)?;
        let mut devices = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        devices.resumption = rustls::client::Resumption::disabled();
        let mut returning = devices.clone();
        returning.resumption = rustls::client::Resumption::in_memory_sessions(MOST_SESSIONS);
        Ok(Self {
            dir,
            devices: Arc::new(devices),
            returning: Arc::new(returning),
        })
    }

    /// The variables that have a gateway show it.
    pub(crate) fn vars(&self) -> [(&'static str, String); 2] {
        let path = |name: &str| -> PathBuf { self.dir.path().join(name) };
        [
            ("FASTSOCK_TLS_CERT", "cert.pem"),
            ("FASTSOCK_TLS_KEY", "key.pem"),
        ]
        .map(|(variable, name)| (variable, path(name).display().to_string()))
    }
}

/// The name under which a device connects: each has one of its own, since sessions to resume are kept by name.
pub(crate) fn name(device: usize) -> String {
    format!("d{device}.{DOMAIN}")
}

/// What the names in the certificate end with.
const DOMAIN: &str = "bench.test";
/// How many sessions are kept to be resumed.
const MOST_SESSIONS: usize = 32_768;
