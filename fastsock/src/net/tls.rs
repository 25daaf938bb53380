//! TLS for what we connect to: rustls with an explicit ring provider, whom to trust, who we are. [`server`] has the device port's, [`name`] who a
//! certificate names, [`pem`] what files hold, [`trust`] which servers we trust, [`validity`] which certificates have expired.

mod name;
pub(crate) mod pem;
mod server;
mod trust;
pub(crate) mod validity;

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    sign::{CertifiedKey, SingleCertAndKey},
};

pub(crate) use self::server::ServerTls;
use self::trust::Verifier;
use crate::error::{Error, ErrorKind, Result};

/// A PEM file, and the variable that names it.
pub(crate) type File<'a> = (&'static str, &'a Path);

/// A certificate of ours with its chain, and its key: what a server gets that asks who we are.
#[derive(Clone, Copy)]
pub(crate) struct Identity<'a> {
    cert: File<'a>,
    key: File<'a>,
}

impl<'a> Identity<'a> {
    /// Takes two settings of which neither or both are set.
    ///
    /// # Errors
    /// `Config`, naming the one that is missing.
    pub(crate) fn new(
        (cert, cert_path): (&'static str, Option<&'a Path>),
        (key, key_path): (&'static str, Option<&'a Path>),
    ) -> Result<Option<Self>> {
        let (missing, given) = match (cert_path, key_path) {
            (None, None) => return Ok(None),
            (Some(cert_path), Some(key_path)) => {
                let (cert, key) = ((cert, cert_path), (key, key_path));
                return Ok(Some(Self { cert, key }));
            }
            (None, Some(_)) => (cert, key),
            (Some(_), None) => (key, cert),
        };
        let text = format!("{missing}: it is required beside {given}");
        Err(Error::new(ErrorKind::Config, text))
    }

    /// Reads both files, and sees that they belong together.
    ///
    /// # Errors
    /// `Config`, naming the variable and the path.
    pub(crate) fn read(&self) -> Result<CertifiedKey> {
        let chain = pem::certificates(self.cert)?;
        let key = pem::private_key(self.key)?;
        CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|e| {
            let what = "the key does not belong to the certificate, or cannot be used,";
            failed(self.key, what).with_source(e)
        })
    }
}

/// A client configuration that trusts the system's certificates (webpki's where the system has none) and those of these
/// PEM files, and shows this identity to a server that asks.
///
/// Reads some hundred certificates from disk: call it at the start, not per connection. Where the system's are is up to
/// rustls-native-certs, which looks at `SSL_CERT_FILE` and `SSL_CERT_DIR` as OpenSSL does.
///
/// # Errors
/// `Config`, naming the variable and the path, when a file cannot be read or holds no certificate or key.
pub(crate) fn client_config<'a>(
    extra: impl IntoIterator<Item = File<'a>>,
    identity: Option<Identity<'_>>,
) -> Result<ClientConfig> {
    let mut roots = system_roots();
    let mut named = Vec::new();
    for file in extra {
        for certificate in pem::certificates(file)? {
            roots
                .add(certificate.clone())
                .map_err(|e| failed(file, "there is a bad certificate").with_source(e))?;
            named.push(certificate);
        }
    }
    // Never the process default: it belongs to the host.
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier::new(roots, named, provider.clone());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the ciphers of TLS 1.2 and 1.3")
        .dangerous() // no less is verified, see there
        .with_custom_certificate_verifier(Arc::new(verifier));
    Ok(match identity {
        None => config.with_no_client_auth(),
        Some(identity) => {
            let key = SingleCertAndKey::from(identity.read()?);
            config.with_client_cert_resolver(Arc::new(key))
        }
    })
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

fn failed((variable, path): File<'_>, what: &str) -> Error {
    let text = format!("{variable}: {what} in {:?}", path.display().to_string());
    Error::new(ErrorKind::Config, text)
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
            let error = client_config([("FASTSOCK_REMOTE_CA", path.as_path())], None)
                .expect_err("a bad file");
            assert_eq!(error.kind(), ErrorKind::Config);
            let line = format!("FASTSOCK_REMOTE_CA: {told} {:?}", path.to_str().unwrap());
            assert_eq!(error.to_string(), line);
        }
    }

    #[test]
    fn an_identity_is_a_certificate_and_the_key_that_belongs_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: String| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["gateway".to_owned()]).unwrap();
        let cert = params.self_signed(&key).unwrap();
        let other_key = rcgen::KeyPair::generate().unwrap();
        let cert = file("cert", cert.pem());
        let key = file("key", key.serialize_pem());
        let other_key = file("other", other_key.serialize_pem());
        let identity = |cert, key| Identity::new(("A_CERT", cert), ("A_KEY", key));

        assert!(identity(None, None).unwrap().is_none());
        let whole = identity(Some(&*cert), Some(&*key)).unwrap().unwrap();
        assert_eq!(whole.read().unwrap().cert.len(), 1);

        let line = |error: Error| error.to_string();
        let half = identity(Some(&*cert), None).err().map(line);
        assert_eq!(half.unwrap(), "A_KEY: it is required beside A_CERT");
        let half = identity(None, Some(&*key)).err().map(line);
        assert_eq!(half.unwrap(), "A_CERT: it is required beside A_KEY");
        for (cert, key, told, named) in [
            (&key, &key, "A_CERT: there is no certificate in", &key),
            (&cert, &cert, "A_KEY: cannot read a private key in", &cert),
            (
                &cert,
                &other_key,
                "A_KEY: the key does not belong to the certificate, or cannot be used, in",
                &other_key,
            ),
        ] {
            let identity = identity(Some(&**cert), Some(&**key)).unwrap().unwrap();
            let expected = format!("{told} {:?}", named.to_str().unwrap());
            assert_eq!(line(identity.read().unwrap_err()), expected);
        }

        let text = |path: &Path| std::fs::read_to_string(path).unwrap();
        let (marked_cert, marked_key) = (
            // As two such files become one.
            file(
                "marked-cert",
                format!("\u{feff}{0}\u{feff}{0}", text(&cert)),
            ),
            file("marked-key", format!("\u{feff}{}", text(&key))),
        );
        let marked = identity(Some(&marked_cert), Some(&marked_key)).unwrap();
        assert_eq!(marked.unwrap().read().unwrap().cert.len(), 2);

        for block in [
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
        ] {
            let locked = file("locked", block.into());
            let both = (("A_CERT", Some(&*cert)), ("A_KEY", Some(&*locked)));
            let locked_identity = Identity::new(both.0, both.1).unwrap().unwrap();
            let expected = format!(
                "A_KEY: the private key in {:?} is encrypted; give it without a password, as openssl pkey writes it",
                locked.to_str().unwrap()
            );
            assert_eq!(line(locked_identity.read().unwrap_err()), expected);
        }
    }
}
