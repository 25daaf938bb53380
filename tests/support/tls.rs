//! A certificate authority of the test's own.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tempfile::TempDir;

/// A certificate authority; its files are gone when it is dropped.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

/// A certificate and its key, signed by an [`Authority`].
#[derive(Debug)]
pub struct Identity {
    /// The certificate, PEM.
    pub cert_path: PathBuf,
    /// The key, PEM.
    pub key_path: PathBuf,
    cert: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl Authority {
    /// A new authority that nobody trusts yet.
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("no names, none wrong");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "Fastsock test authority");
        let key = KeyPair::generate().expect("ring makes keys");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("the parameters are fine");
        let dir = TempDir::new().expect("a temporary directory");
        fs::write(dir.path().join(CA), issuer.pem()).expect("written");
        Self { issuer, dir }
    }

    /// The PEM file of its certificate, for the setting that says whom to trust.
    pub fn ca_path(&self) -> PathBuf {
        self.dir.path().join(CA)
    }

    /// A certificate for these host names and addresses.
    pub fn issue(&self, names: &[&str]) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).into()).collect();
        let params = CertificateParams::new(names.clone()).expect("host names or addresses");
        let key = KeyPair::generate().expect("ring makes keys");
        let cert = params
            .signed_by(&key, &self.issuer)
            .expect("the parameters are fine");
        Identity {
            cert_path: self.write(&names, "cert.pem", &cert.pem()),
            key_path: self.write(&names, "key.pem", &key.serialize_pem()),
            cert: cert.der().clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
        }
    }

    /// A certificate for `localhost` and `127.0.0.1`.
    pub fn issue_for_loopback(&self) -> Identity {
        self.issue(&["localhost", "127.0.0.1"])
    }

    fn write(&self, names: &[String], file: &str, pem: &str) -> PathBuf {
        let first = names.first().map_or("nobody", String::as_str);
        let path = self.dir.path().join(format!("{first}-{file}"));
        fs::write(&path, pem).expect("written");
        path
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Identity {
    /// A server's side of TLS with this certificate; asks clients for none.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_no_client_auth()
            .with_single_cert(
                vec![self.cert.clone()],
                PrivateKeyDer::Pkcs8(self.key.clone_key()),
            )
            .expect("the key belongs to the certificate");
        Arc::new(config)
    }

    /// The directory its files are in.
    pub fn dir(&self) -> &Path {
        self.cert_path.parent().expect("a file is in a directory")
    }
}

const CA: &str = "ca.pem";
