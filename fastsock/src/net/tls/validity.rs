//! Certificates of the settings that have expired, or are not valid yet: whoever checks them refuses us, or we refuse everyone.

use std::path::{Path, PathBuf};

use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{
    certificate::X509CertificateParser, nom::Parser, time::ASN1Time, x509::X509Name,
};

use super::pem;
use crate::config::{Config, Warning};

/// A warning for each file that has such a certificate; a file of authorities only when it has no other, since those for all the
/// world's servers keep expired ones. A file that cannot be read is passed over: whoever uses it tells of it.
pub(crate) fn warnings(config: &Config) -> Vec<Warning> {
    let now = ASN1Time::now();
    let certificates = [
        ("FASTSOCK_REDIS_CERT", &config.redis_cert),
        ("FASTSOCK_REMOTE_CERT", &config.remote_cert),
    ];
    let authorities = [
        ("FASTSOCK_TLS_CLIENT_CA", &config.tls_client_ca),
        ("FASTSOCK_REDIS_CA", &config.redis_ca),
        ("FASTSOCK_REMOTE_CA", &config.remote_ca),
        ("NODE_EXTRA_CA_CERTS", &config.extra_ca_certs),
    ];
    let given = |(variable, path): (_, &Option<PathBuf>)| path.clone().map(|path| (variable, path));
    let device_port = config.tls_cert.iter().cloned();
    let certificates = device_port
        .map(|path| ("FASTSOCK_TLS_CERT", path))
        .chain(certificates.into_iter().filter_map(given))
        .filter_map(|(variable, path)| warning(variable, &path, now, 1));
    let authorities = authorities
        .into_iter()
        .filter_map(given)
        .filter_map(|(variable, path)| warning(variable, &path, now, usize::MAX));
    certificates.chain(authorities).collect()
}

/// Those of the device port alone, which a reload reads.
pub(crate) fn device_port_warnings(config: &Config) -> Vec<Warning> {
    let mut all = warnings(config);
    all.retain(|warning| warning.about.starts_with("FASTSOCK_TLS_"));
    all
}

/// What is wrong with a file in which so many certificates, or all, are not valid now.
fn warning(variable: &str, path: &Path, now: ASN1Time, at_least: usize) -> Option<Warning> {
    let text = pem::read(path).ok()?;
    let ders: Vec<_> = CertificateDer::pem_slice_iter(&text).flatten().collect();
    // Extensions say nothing about it, and the parser would make tables for them that stay for the life of the process.
    let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
    let bad: Vec<_> = ders
        .iter()
        .filter_map(|der| {
            let (_, certificate) = parser.parse(der).ok()?;
            let validity = certificate.validity();
            let (message, verb, at) = if now > validity.not_after {
                ("A certificate has expired", "expired", validity.not_after)
            } else if now < validity.not_before {
                let message = "A certificate is not valid yet";
                (message, "is valid from", validity.not_before)
            } else {
                return None;
            };
            let subject = name(certificate.subject());
            Some((message, format!("{subject} {verb} {}", date(at))))
        })
        .collect();
    let (message, first) = bad.first()?;
    if bad.len() < at_least.min(ders.len()) {
        return None;
    }
    let more = match bad.len() - 1 {
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

/// The common name, or else the organization.
fn name(subject: &X509Name<'_>) -> String {
    let mut names = subject
        .iter_common_name()
        .chain(subject.iter_organization());
    names
        .find_map(|name| name.as_str().ok())
        .unwrap_or("a certificate without a name")
        .to_owned()
}

fn date(at: ASN1Time) -> String {
    let at = at.to_datetime();
    let (date, hour, minute) = (at.date(), at.hour(), at.minute());
    format!("{date} {hour:02}:{minute:02} UTC")
}
