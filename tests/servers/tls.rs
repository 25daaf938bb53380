//! A certificate authority of the test's own.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
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
        Self::of(params, KeyPair::generate().expect("ring makes keys"))
    }

    fn of(params: CertificateParams, key: KeyPair) -> Self {
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
        self.sign(&params, names.first().map_or("nobody", String::as_str))
    }

    fn sign(&self, params: &CertificateParams, name: &str) -> Identity {
        let key = KeyPair::generate().expect("ring makes keys");
        let cert = params
            .signed_by(&key, &self.issuer)
            .expect("the parameters are fine");
        Identity {
            cert_path: self.write(name, "cert.pem", &cert.pem()),
            key_path: self.write(name, "key.pem", &key.serialize_pem()),
            cert: cert.der().clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
        }
    }

    /// The certificate of a device: a common name, if any, and alternative names; it expires in that many seconds from now.
    pub fn issue_to_device(&self, common_name: &str, names: &[&str], seconds: i64) -> Identity {
        let alternative: Vec<String> = names.iter().map(|name| (*name).into()).collect();
        let mut params = CertificateParams::new(alternative).expect("host names or addresses");
        params.distinguished_name = DistinguishedName::new();
        if !common_name.is_empty() {
            params
                .distinguished_name
                .push(DnType::CommonName, common_name);
        }
        let now = std::time::SystemTime::now();
        let length = Duration::from_secs(seconds.unsigned_abs());
        params.not_before = (now - Duration::from_secs(86_400)).into();
        params.not_after = match seconds {
            0.. => now + length,
            _ => now - length,
        }
        .into();
        self.sign(&params, &format!("device-{common_name}"))
    }

    /// The certificate of a device with this common name that is valid from tomorrow on.
    pub fn issue_to_come(&self, common_name: &str) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        let tomorrow = std::time::SystemTime::now() + Duration::from_secs(86_400);
        params.not_before = tomorrow.into();
        self.sign(&params, &format!("device-{common_name}"))
    }

    /// A certificate with just these names, valid now.
    pub fn issue_named(
        &self,
        subject: DistinguishedName,
        alternative: &[rcgen::SanType],
    ) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject;
        params.subject_alt_names = alternative.to_vec();
        self.sign(&params, "named")
    }

    /// A server's side of TLS that takes only clients with a certificate of this authority.
    pub fn mutual_config(&self, identity: &Identity) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("it is one");
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_client_cert_verifier(verifier.build().expect("there is a root"))
            .with_single_cert(vec![identity.cert.clone()], identity.key.clone_key().into())
            .expect("the key belongs to the certificate");
        Arc::new(config)
    }

    /// An authority for one server, `localhost` and `127.0.0.1`, that shows the authority's own certificate: as `openssl req -x509`
    /// makes them.
    pub fn of_its_own() -> (Self, Identity) {
        let names = ["localhost", "127.0.0.1"].map(String::from);
        let mut params = CertificateParams::new(names).expect("host names or addresses");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("ring makes keys");
        let (key_pem, key_der) = (key.serialize_pem(), key.serialize_der());
        let authority = Self::of(params, key);
        let cert = authority.issuer.der().clone();
        let identity = Identity {
            cert_path: authority.ca_path(),
            key_path: authority.write("own", "key.pem", &key_pem),
            cert,
            key: PrivatePkcs8KeyDer::from(key_der),
        };
        (authority, identity)
    }

    /// A certificate for `localhost` and `127.0.0.1`.
    pub fn issue_for_loopback(&self) -> Identity {
        self.issue(&["localhost", "127.0.0.1"])
    }

    fn write(&self, name: &str, file: &str, pem: &str) -> PathBuf {
        let path = self.dir.path().join(format!("{name}-{file}"));
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

    /// A device's side of TLS that trusts this authority and, if it has one, shows this certificate.
    pub fn client_config(
        authority: &Authority,
        shown: Option<&Self>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots
            .add(authority.issuer.der().clone())
            .expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("ring has them")
            .with_root_certificates(roots);
        let config = match shown {
            None => builder.with_no_client_auth(),
            Some(shown) => builder
                .with_client_auth_cert(
                    vec![shown.cert.clone()],
                    PrivateKeyDer::Pkcs8(shown.key.clone_key()),
                )
                .expect("the key belongs to the certificate"),
        };
        Arc::new(config)
    }

    /// The directory its files are in.
    pub fn dir(&self) -> &Path {
        self.cert_path.parent().expect("a file is in a directory")
    }
}

const CA: &str = "ca.pem";
