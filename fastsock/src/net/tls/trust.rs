//! Which servers we trust: those that webpki trusts, and one that shows a certificate which a file of ours holds itself.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::CryptoProvider,
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::{
    certificate::{X509Certificate, X509CertificateParser},
    nom::Parser,
    oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME,
    prelude::FromDer,
};

/// Verifies servers. `openssl req -x509` makes an authority of a server's own certificate, and names its host only in the subject unless it
/// is told otherwise. Programs with OpenSSL take that once it is trusted, webpki never does (`CaUsedAsEndEntity`, no common names).
#[derive(Debug)]
pub(super) struct Verifier {
    webpki: Arc<WebPkiServerVerifier>,
    /// Certificates of our files that name a host.
    named: Vec<CertificateDer<'static>>,
}

impl Verifier {
    /// Trusts what these roots have signed, and these certificates themselves.
    pub(super) fn new(
        roots: RootCertStore,
        mut named: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        named.retain(names_a_host);
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let webpki = webpki
            .build()
            .expect("there is a root, and no list of revoked ones");
        Self { webpki, named }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self
            .webpki
            .verify_server_cert(certificate, intermediates, name, ocsp_response, now)
        {
            Err(_) if self.named.iter().any(|named| named == certificate) => {
                verify_itself(certificate, name, now)
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// Whether a certificate could be that of a server: bundles of authorities have hundreds that could not, and need not be kept.
fn names_a_host(certificate: &CertificateDer<'_>) -> bool {
    // As in `validity`: deep parsing makes tables that stay.
    let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
    parser.parse(certificate).is_ok_and(|(_, certificate)| {
        has_alternative_names(&certificate) || common_name(&certificate).is_some()
    })
}

fn has_alternative_names(certificate: &X509Certificate<'_>) -> bool {
    let mut extensions = certificate.extensions().iter();
    extensions.any(|extension| extension.oid == OID_X509_EXT_SUBJECT_ALT_NAME)
}

/// The common name, if there is one and it is that of a host.
fn common_name<'a>(certificate: &'a X509Certificate<'_>) -> Option<ServerName<'a>> {
    let mut names = certificate.subject().iter_common_name();
    let (Some(name), None) = (names.next(), names.next()) else {
        return None;
    };
    let name = ServerName::try_from(name.as_str().ok()?).ok()?;
    matches!(name, ServerName::DnsName(_)).then_some(name)
}

/// Finds whether a certificate that is trusted as it is may stand for this server now. Nobody else vouches for it.
fn verify_itself(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<ServerCertVerified, Error> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    // RFC 6125 §6.4.4: the common name counts where nothing else names a host.
    if has_alternative_names(&parsed) {
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
    } else if common_name(&parsed).as_ref() != Some(name) {
        return Err(CertificateError::NotValidForName.into());
    }
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = parsed.validity();
    if seconds < validity.not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    if seconds > validity.not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    match parsed.extended_key_usage() {
        Ok(None) => {}
        Ok(Some(usage)) if usage.value.server_auth || usage.value.any => {}
        _ => return Err(CertificateError::InvalidPurpose.into()),
    }
    Ok(ServerCertVerified::assertion())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
        IsCa, KeyPair, date_time_ymd,
    };
    use rustls::crypto::ring;

    use super::*;

    /// An authority's own certificate for `backend`, valid for this century.
    fn params() -> CertificateParams {
        let mut params = CertificateParams::new(["backend".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2100, 1, 1);
        params
    }

    fn made(params: &CertificateParams) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    fn verify(
        named: &[CertificateDer<'static>],
        shown: &CertificateDer<'_>,
        name: &str,
        year: u64,
    ) -> Result<(), Error> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(named.to_vec());
        let verifier = Verifier::new(roots, named.to_vec(), ring::default_provider().into());
        let now = UnixTime::since_unix_epoch(Duration::from_secs((year - 1970) * 31_557_600));
        let name = ServerName::try_from(name).unwrap();
        let verified = verifier.verify_server_cert(shown, &[], &name, &[], now);
        verified.map(|_| ())
    }

    #[test]
    fn an_authority_that_is_named_itself_stands_for_its_own_host_while_it_is_valid() {
        let own = made(&params());
        let named = [own.clone()];
        assert_eq!(verify(&named, &own, "backend", 2026), Ok(()));
        for (name, year) in [("other", 2026), ("backend", 1999), ("backend", 2101)] {
            assert!(verify(&named, &own, name, year).is_err(), "{name} {year}");
        }
        // Another one that says the same is not the one that is named.
        let twin = made(&params());
        assert!(verify(&named, &twin, "backend", 2026).is_err());
    }

    #[test]
    fn an_authority_for_another_purpose_stands_for_no_host() {
        for (purpose, is_trusted) in [
            (ExtendedKeyUsagePurpose::ServerAuth, true),
            (ExtendedKeyUsagePurpose::ClientAuth, false),
        ] {
            let mut params = params();
            params.extended_key_usages = vec![purpose];
            let own = made(&params);
            let verified = verify(std::slice::from_ref(&own), &own, "backend", 2026);
            assert_eq!(verified.is_ok(), is_trusted, "{verified:?}");
        }
    }

    /// The same, but with a common name and no others.
    fn named_in_subject(name: &str) -> CertificateDer<'static> {
        let mut params = params();
        params.subject_alt_names.clear();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        made(&params)
    }

    #[test]
    fn a_common_name_counts_where_nothing_else_names_a_host() {
        let own = named_in_subject("Backend");
        assert_eq!(
            verify(std::slice::from_ref(&own), &own, "backend", 2026),
            Ok(())
        );
        assert!(verify(std::slice::from_ref(&own), &own, "other", 2026).is_err());
        let address = named_in_subject("127.0.0.1");
        let verified = verify(std::slice::from_ref(&address), &address, "127.0.0.1", 2026);
        assert!(verified.is_err(), "an address is no common name");

        let mut both = params();
        both.distinguished_name.push(DnType::CommonName, "other");
        let both = made(&both);
        assert!(verify(std::slice::from_ref(&both), &both, "other", 2026).is_err());
    }

    #[test]
    fn authorities_that_name_no_host_are_not_kept() {
        assert!(names_a_host(&made(&params())));
        assert!(names_a_host(&named_in_subject("backend")));
        assert!(!names_a_host(&named_in_subject("Backend Root CA 1")));
    }
}
