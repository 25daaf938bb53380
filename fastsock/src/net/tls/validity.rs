//! Certificates of the settings that have expired, or are not valid yet: whoever checks them refuses us, or we refuse everyone.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{
    certificate::{X509Certificate, X509CertificateParser},
    nom::Parser,
    time::ASN1Time,
    x509::X509Name,
};

use super::pem;
use crate::config::{Config, Warning};

/// A warning for each file that has such a certificate; a file of authorities only when it has no other, since those for all the
/// world's servers keep expired ones. A file that cannot be read is passed over: whoever uses it tells of it.
pub(crate) fn warnings(config: &Config) -> Vec<Warning> {
    let now = ASN1Time::now();
    look(config, |certificate| invalid(certificate, now))
}

/// A warning for each file that has a certificate which is valid now and expires within a time.
pub(crate) fn expiring(config: &Config, within: Duration) -> Vec<Warning> {
    let now = ASN1Time::now();
    let seconds = i64::try_from(within.as_secs()).unwrap_or(i64::MAX);
    let by = now.timestamp().saturating_add(seconds);
    look(config, |certificate| {
        let validity = certificate.validity();
        let is_soon = validity.is_valid_at(now) && validity.not_after.timestamp() < by;
        is_soon.then_some(("A certificate expires soon", "expires", validity.not_after))
    })
}

/// What is told of a certificate, if anything: a sentence, a verb and a time.
type Told = Option<(&'static str, &'static str, ASN1Time)>;

fn invalid(certificate: &X509Certificate<'_>, now: ASN1Time) -> Told {
    let validity = certificate.validity();
    if now > validity.not_after {
        Some(("A certificate has expired", "expired", validity.not_after))
    } else if now < validity.not_before {
        let message = "A certificate is not valid yet";
        Some((message, "is valid from", validity.not_before))
    } else {
        None
    }
}

fn look(config: &Config, tell: impl Fn(&X509Certificate<'_>) -> Told) -> Vec<Warning> {
    let certificates = [
        ("FASTSOCK_REDIS_CERT", &config.redis.cert),
        ("FASTSOCK_REMOTE_CERT", &config.remote.cert),
    ];
    let authorities = [
        ("FASTSOCK_TLS_CLIENT_CA", &config.tls.client_ca),
        ("FASTSOCK_REDIS_CA", &config.redis.ca),
        ("FASTSOCK_REMOTE_CA", &config.remote.ca),
        ("NODE_EXTRA_CA_CERTS", &config.remote.extra_ca_certs),
    ];
    let given = |(variable, path): (_, &Option<PathBuf>)| path.clone().map(|path| (variable, path));
    let device_port = config.tls.cert.iter().cloned();
    let certificates = device_port
        .map(|path| ("FASTSOCK_TLS_CERT", path))
        .chain(certificates.into_iter().filter_map(given))
        .filter_map(|(variable, path)| warning(variable, &path, &tell, 1));
    let authorities = authorities
        .into_iter()
        .filter_map(given)
        .filter_map(|(variable, path)| warning(variable, &path, &tell, usize::MAX));
    certificates.chain(authorities).collect()
}

/// Those of the device port alone, which a reload reads.
pub(crate) fn device_port_warnings(config: &Config) -> Vec<Warning> {
    let mut all = warnings(config);
    all.retain(|warning| warning.about.starts_with("FASTSOCK_TLS_"));
    all
}

/// What is told of a file when it is of so many certificates in it, or of all.
fn warning(
    variable: &str,
    path: &Path,
    tell: impl Fn(&X509Certificate<'_>) -> Told,
    at_least: usize,
) -> Option<Warning> {
    let text = pem::read(path).ok()?;
    let ders: Vec<_> = CertificateDer::pem_slice_iter(&text).flatten().collect();
    // Extensions say nothing about it, and the parser would make tables for them that stay for the life of the process.
    let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
    let bad: Vec<_> = ders
        .iter()
        .filter_map(|der| {
            let (_, certificate) = parser.parse(der).ok()?;
            let (message, verb, at) = tell(&certificate)?;
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
