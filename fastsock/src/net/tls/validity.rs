//! Certificates of the settings that have expired, or are not valid yet: whoever checks them refuses us, or we refuse everyone.

use std::path::Path;

use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, prelude::FromDer, time::ASN1Time};

use super::pem;
use crate::config::{Config, Warning};

/// A warning for each file that has such a certificate. A file that cannot be read is passed over: whoever uses it tells of it.
pub(crate) fn warnings(config: &Config) -> Vec<Warning> {
    let one = |variable, path: &Option<_>| path.clone().map(|path| (variable, path));
    let certs = config.tls_cert.iter().cloned();
    let files = certs.map(|path| ("FASTSOCK_TLS_CERT", path)).chain(
        [
            one("FASTSOCK_TLS_CLIENT_CA", &config.tls_client_ca),
            one("FASTSOCK_REDIS_CA", &config.redis_ca),
            one("FASTSOCK_REDIS_CERT", &config.redis_cert),
            one("FASTSOCK_REMOTE_CA", &config.remote_ca),
            one("NODE_EXTRA_CA_CERTS", &config.extra_ca_certs),
            one("FASTSOCK_REMOTE_CERT", &config.remote_cert),
        ]
        .into_iter()
        .flatten(),
    );
    let now = ASN1Time::now();
    files
        .filter_map(|(variable, path)| warning(variable, &path, now))
        .collect()
}

/// Those of the device port alone, which a reload reads.
pub(crate) fn device_port_warnings(config: &Config) -> Vec<Warning> {
    let mut all = warnings(config);
    all.retain(|warning| warning.about.starts_with("FASTSOCK_TLS_"));
    all
}

fn warning(variable: &str, path: &Path, now: ASN1Time) -> Option<Warning> {
    let text = pem::read(path).ok()?;
    let ders: Vec<_> = CertificateDer::pem_slice_iter(&text).flatten().collect();
    let mut bad = ders.iter().filter_map(|der| {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        let (message, verb, at) = if now > validity.not_after {
            ("A certificate has expired", "expired", validity.not_after)
        } else if now < validity.not_before {
            let message = "A certificate is not valid yet";
            (message, "is valid from", validity.not_before)
        } else {
            return None;
        };
        let subject = certificate.subject();
        Some((message, format!("{subject} {verb} {}", date(at))))
    });
    let (message, first) = bad.next()?;
    let more = match bad.count() {
        0 => String::new(),
        count => format!(", and {count} more in this file"),
    };
    let path = path.display().to_string();
    Some(Warning {
        message,
        about: variable.into(),
        hint: format!("{path:?}: {first}{more}"),
    })
}

fn date(at: ASN1Time) -> String {
    let at = at.to_datetime();
    let (date, hour, minute) = (at.date(), at.hour(), at.minute());
    format!("{date} {hour:02}:{minute:02} UTC")
}
