//! What `rediss` takes: which certificates to trust, and which to show.

use std::path::Path;

use redis::{ConnectionAddr, ConnectionInfo};

use super::not_a_url;
use crate::{
    config::Config,
    error::{Error, ErrorKind, Result},
    net::tls::pem,
};

/// For `rediss`: trusts the system's certificates (else webpki's), and those of the two settings.
pub(super) fn with_certificates(info: ConnectionInfo, config: &Config) -> Result<ConnectionInfo> {
    let ConnectionAddr::TcpTls { insecure, .. } = info.addr() else {
        return Ok(info);
    };
    if *insecure {
        let text = "FASTSOCK_REDIS_URL: #insecure is not allowed; name the certificate in FASTSOCK_REDIS_CA";
        return Err(Error::new(ErrorKind::Config, text));
    }
    // redis-rs takes the provider of the process. Installing one is the host's right, so only where none is.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let mut pem = Vec::new();
    for (setting, path) in [
        ("FASTSOCK_REDIS_CA", &config.redis.ca),
        ("NODE_EXTRA_CA_CERTS", &config.remote.extra_ca_certs),
    ] {
        if let Some(path) = path {
            pem.extend(certificates(setting, path)?);
        }
    }
    for der in rustls_native_certs::load_native_certs().certs {
        if rustls::RootCertStore::empty().add(der.clone()).is_ok() {
            append_pem(&mut pem, &der);
        }
    }
    let certificates = redis::TlsCertificates {
        client_tls: identity(config)?,
        root_cert: Some(pem).filter(|pem| !pem.is_empty()), // redis-rs then takes webpki's
    };
    redis::Client::build_with_tls(info, certificates)
        .map(|client| client.get_connection_info().clone())
        .map_err(not_a_url)
}

/// What a server gets that asks who we are.
fn identity(config: &Config) -> Result<Option<redis::ClientTlsConfig>> {
    let (cert, key) = (&config.redis.cert, &config.redis.key);
    let identity = crate::net::tls::Identity::new(
        ("FASTSOCK_REDIS_CERT", cert.as_deref()),
        ("FASTSOCK_REDIS_KEY", key.as_deref()),
    )?;
    let (Some(identity), Some(cert), Some(key)) = (identity, cert, key) else {
        return Ok(None);
    };
    identity.read()?;
    let read = |setting: &str, path: &Path| {
        pem::read(path).map_err(|e| {
            let text = format!("{setting}: cannot read {}", path.display());
            Error::new(ErrorKind::Config, text).with_source(e)
        })
    };
    Ok(Some(redis::ClientTlsConfig {
        client_cert: read("FASTSOCK_REDIS_CERT", cert)?,
        client_key: read("FASTSOCK_REDIS_KEY", key)?,
    }))
}

/// The PEM text of a file that must hold at least one certificate.
fn certificates(setting: &str, path: &Path) -> Result<Vec<u8>> {
    use rustls_pki_types::{CertificateDer, pem::PemObject};
    let fail = |text: &str| {
        let path = path.display();
        Error::new(ErrorKind::Config, format!("{setting}: {text} {path}"))
    };
    let text = pem::read(path).map_err(|e| fail("cannot read").with_source(e))?;
    let mut pem = Vec::new();
    for der in CertificateDer::pem_slice_iter(&text) {
        let der = der.map_err(|e| fail("no certificates in").with_source(e))?;
        rustls::RootCertStore::empty()
            .add(der.clone())
            .map_err(|e| fail("a certificate cannot be used in").with_source(e))?;
        append_pem(&mut pem, &der);
    }
    if pem.is_empty() {
        return Err(fail("no certificates in"));
    }
    Ok(pem)
}

fn append_pem(pem: &mut Vec<u8>, der: &[u8]) {
    pem.extend(b"-----BEGIN CERTIFICATE-----\n");
    pem.extend(data_encoding::BASE64.encode(der).as_bytes());
    pem.extend(b"\n-----END CERTIFICATE-----\n");
}
