//! TLS for what we connect to: rustls with an explicit ring provider, and whom to trust. [`server`] has the device port's.

mod server;

use std::{path::Path, sync::Arc};

use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, pem::PemObject};

pub(crate) use self::server::ServerTls;
use crate::error::{Error, ErrorKind, Result};

/// A client configuration that trusts the system's certificates (webpki's where the system has none) and those of these
/// PEM files, each given with the variable that names it.
///
/// Reads some hundred certificates from disk: call it at the start, not per connection. Where the system's are is up to
/// rustls-native-certs, which looks at `SSL_CERT_FILE` and `SSL_CERT_DIR` as OpenSSL does.
///
/// # Errors
/// `Config`, naming the variable and the path, when a file cannot be read or holds no certificate.
pub(crate) fn client_config<'a>(
    extra: impl IntoIterator<Item = (&'static str, &'a Path)>,
) -> Result<ClientConfig> {
    let mut roots = system_roots();
    for (variable, path) in extra {
        add_file(&mut roots, variable, path)?;
    }
    // Never the process default: it belongs to the host.
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the ciphers of TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // A broken file among the system's is no reason not to use the others.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

fn add_file(roots: &mut RootCertStore, variable: &str, path: &Path) -> Result<()> {
    for certificate in certificates(variable, path)? {
        roots.add(certificate).map_err(|e| {
            let path = path.display().to_string();
            let text = format!("{variable}: there is a bad certificate in {path:?}");
            Error::new(ErrorKind::Config, text).with_source(e)
        })?;
    }
    Ok(())
}

/// The certificates of a PEM file; at least one.
fn certificates(variable: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let failed = |what: &str| {
        let text = format!("{variable}: {what} in {:?}", path.display().to_string());
        Error::new(ErrorKind::Config, text)
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| failed("cannot read certificates").with_source(e))?;
    match certificates.is_empty() {
        true => Err(failed("there is no certificate")),
        false => Ok(certificates),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_file_names_its_variable_and_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let bad_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (name, content, told) in [
            ("missing", None, "cannot read certificates in"),
            ("empty", Some("no PEM here"), "there is no certificate in"),
            ("bad", Some(bad_der), "there is a bad certificate in"),
        ] {
            let path = directory.path().join(name);
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let error =
                client_config([("FASTSOCK_REMOTE_CA", path.as_path())]).expect_err("a bad file");
            assert_eq!(error.kind(), ErrorKind::Config);
            let line = format!("FASTSOCK_REMOTE_CA: {told} {:?}", path.to_str().unwrap());
            assert_eq!(error.to_string(), line);
        }
    }
}
