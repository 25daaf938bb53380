//! TLS of the device port: certificates by name, client certificates, and reading all of them again while devices are connected.

use std::{io, path::Path, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
    client::verify_server_name,
    crypto::{CryptoProvider, ring},
    server::{
        ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
        WebPkiClientVerifier, danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsAcceptor;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{
    name::{name_of, names_of},
    pem,
    validity::device_port_warnings,
};
use crate::{
    config::{ClientAuth, Config, Warning},
    error::{Error, ErrorKind, Result},
    files::{self, Turn, Turns},
    locks::Mutex,
    net::{
        Certified,
        wire::{Tcp, Wire},
    },
};

/// What the device port shows and asks for; replaced as a whole by a reload.
pub(crate) struct ServerTls {
    current: Mutex<Arc<ServerConfig>>,
    reloads: Turns,
}

impl ServerTls {
    /// Reads certificates and keys; `None` when none is configured: the port is plain.
    ///
    /// # Errors
    /// `Config`, naming the variable and the path, when a file cannot be read or does not fit the others.
    pub(crate) fn new(config: &Config) -> Result<Option<Self>> {
        if config.tls.cert.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            current: Mutex::new(Arc::new(read(config)?)),
            reloads: Turns::default(),
        }))
    }

    /// Reads the same files again, for connections to come; with an error, what was read before stays. Blocks while it reads, for
    /// at most 20 s. Returns what looks wrong in them.
    ///
    /// # Errors
    /// As [`ServerTls::new`]; and when a file takes longer than it may.
    pub(crate) fn reload(&self, config: &Config) -> Result<Vec<Warning>> {
        let config = config.clone();
        let read_in_turn = |turn: Turn| {
            files::within(move || {
                let read = read(&config).map(|read| (read, device_port_warnings(&config)));
                drop(turn);
                read
            })
        };
        let read = self.reloads.take().and_then(read_in_turn).map_err(|e| {
            let text = "FASTSOCK_TLS_CERT, FASTSOCK_TLS_KEY, FASTSOCK_TLS_CLIENT_CA: not reloaded";
            Error::new(ErrorKind::Config, text).with_source(e)
        })?;
        let (read, warnings) = read?;
        *self.current.lock() = Arc::new(read);
        Ok(warnings)
    }

    /// The handshake of one device. Returns its connection, and what the certificate names that it showed, if any.
    pub(crate) async fn accept(&self, tcp: Tcp) -> io::Result<(Wire, Certified)> {
        let acceptor = TlsAcceptor::from(self.current.lock().clone());
        let tls = acceptor
            .accept_with(tcp, |tls| tls.set_buffer_limit(Some(UNSENT_MAX_BYTES)))
            .await?;
        let name = match tls.get_ref().1.peer_certificates() {
            Some([certificate, ..]) => read_certificate(certificate)?,
            _ => Certified::NONE,
        };
        Ok((Wire::Tls(Box::new(tls)), name))
    }
}

/// Reads the files of the settings.
fn read(config: &Config) -> Result<ServerConfig> {
    let provider = Arc::new(provider(&config.tls.ciphers));
    let certificates = config
        .tls
        .cert
        .iter()
        .zip(&config.tls.key)
        .map(|(cert, key)| read_pair(cert, key, &provider).map(Arc::new))
        .collect::<Result<_>>()?;
    // A version without a cipher suite must not be chosen.
    let has_suite = |version: &&&SupportedProtocolVersion| {
        let mut suites = provider.cipher_suites.iter();
        suites.any(|suite| suite.version() == **version)
    };
    let versions: Vec<_> = rustls::ALL_VERSIONS
        .iter()
        .filter(has_suite)
        .copied()
        .collect();
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)
        .expect("`Config::check` allows only cipher suites that ring has");
    let builder = match client_verifier(config, provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_cert_resolver(Arc::new(Certificates(certificates)));
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A device resumes with what its ticket holds, so nothing is kept for it here. A reload makes a new key: no ticket outlives
    // the authorities that its certificate was checked against.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.ticketer = ring::Ticketer::new()
        .map_err(|e| Error::new(ErrorKind::Io, "no key for TLS tickets").with_source(e))?;
    server.send_tls13_tickets = 1;
    Ok(server)
}

/// What ring can do, with these cipher suites of it; all, if none is named. Never the process default: it belongs to the host.
fn provider(ciphers: &[String]) -> CryptoProvider {
    let mut provider = ring::default_provider();
    let is_named = |suite: &SupportedCipherSuite| ciphers.contains(&suite_name(suite));
    if !ciphers.is_empty() {
        provider.cipher_suites.retain(is_named);
    }
    provider
}

/// The name that IANA gave a cipher suite; rustls has its own for those of TLS 1.3.
fn suite_name(suite: &SupportedCipherSuite) -> String {
    let name = suite.suite().as_str().unwrap_or_default();
    name.replacen("TLS13_", "TLS_", 1)
}

/// A certificate with its chain, and its key.
fn read_pair(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey> {
    let chain = pem::certificates(("FASTSOCK_TLS_CERT", cert))?;
    let der = pem::private_key(("FASTSOCK_TLS_KEY", key))?;
    CertifiedKey::from_der(chain, der, provider).map_err(|e| {
        let path = key.display().to_string();
        let text = format!("FASTSOCK_TLS_KEY: this is not the key of its certificate: {path:?}");
        Error::new(ErrorKind::Config, text).with_source(e)
    })
}

fn client_verifier(
    config: &Config,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>> {
    let Some(path) = &config.tls.client_ca else {
        return Ok(None); // `Config::check` has seen to it that nobody expects one
    };
    let bad = |e: Box<dyn std::error::Error + Send + Sync>| {
        let path = path.display().to_string();
        let text = format!("FASTSOCK_TLS_CLIENT_CA: there is a bad certificate in {path:?}");
        Error::new(ErrorKind::Config, text).with_source(e)
    };
    let mut roots = RootCertStore::empty();
    for certificate in pem::certificates(("FASTSOCK_TLS_CLIENT_CA", path))? {
        roots.add(certificate).map_err(|e| bad(e.into()))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if config.tls.client_auth == ClientAuth::Optional {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map(Some).map_err(|e| bad(e.into()))
}

/// Certificates to choose from by the name that the device asks for (SNI, RFC 6066 §3).
#[derive(Debug)]
struct Certificates(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Certificates {
    /// The first that has the name and can sign as the device understands; the very first when none has the name.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let has_name = |certified: &&Arc<CertifiedKey>| {
            hello.server_name().is_some_and(|n| has_name(certified, n))
        };
        let can_sign = |certified: &&Arc<CertifiedKey>| {
            certified
                .key
                .choose_scheme(hello.signature_schemes())
                .is_some()
        };
        let all = || self.0.iter();
        all()
            .filter(has_name)
            .find(can_sign)
            .or_else(|| all().find(has_name))
            .or_else(|| all().next())
            .cloned()
    }
}

fn has_name(certified: &CertifiedKey, name: &str) -> bool {
    let (Ok(certificate), Ok(name)) = (certified.end_entity_cert(), ServerName::try_from(name))
    else {
        return false;
    };
    let parsed = ParsedCertificate::try_from(certificate);
    parsed.is_ok_and(|certificate| verify_server_name(&certificate, &name).is_ok())
}

/// What a client certificate says of its device.
///
/// # Errors
/// When it is not valid now. TLS checks that too, but not again for a session that is resumed.
fn read_certificate(certificate: &CertificateDer<'_>) -> io::Result<Certified> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let (_, certificate) =
        X509Certificate::from_der(certificate).map_err(|_| invalid("a bad client certificate"))?;
    if !certificate.validity().is_valid() {
        return Err(invalid("the client certificate has expired"));
    }
    Ok(Certified {
        name: name_of(&certificate),
        names: Some(Box::new(names_of(&certificate))),
    })
}

/// Bytes of a device's downlinks that TLS holds beside the outbox while the kernel takes no more: one record.
const UNSENT_MAX_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suites_of_the_settings_are_those_of_ring() {
        let provider = provider(&[]);
        let names: Vec<_> = provider.cipher_suites.iter().map(suite_name).collect();
        assert_eq!(names, crate::config::cipher::SUITES);
    }
}
