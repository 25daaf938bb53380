//! The port to who may connect: what a device shows, and what comes of it.

#[cfg(feature = "jwt")]
pub(crate) mod jwt;
pub(crate) mod tokens;
pub(crate) mod webhook;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use crate::{
    remote_addr::RemoteAddr,
    tasks::BoxFuture,
    types::{ClientId, ConnectRequest, Credentials, Refusal},
};

/// Decides who may connect, and under which client id.
pub(crate) trait Authenticate: Send + Sync {
    /// Decides about one device. Never panics; every wait in it has a deadline.
    fn authenticate<'a>(&'a self, shown: Shown<'a>) -> BoxFuture<'a, Result<Principal, Denied>>;

    /// Whether what a session was let in on holds still. Asked once more when it has its seat: what was withdrawn in between
    /// is noticed either here or by who withdraws it.
    fn holds(&self, client_id: &ClientId, grant: &Grant) -> bool {
        let _ = (client_id, grant);
        true
    }
}

/// Who may connect when no hook of the host decides.
pub(crate) enum Auth {
    /// Anyone who names a client id, in the `token` of the request target.
    Open,
    /// Whose client certificate TLS has checked.
    Certificate,
    /// Whom a provider lets in.
    Provider(Arc<dyn Authenticate>),
}

/// What one device shows, and from where.
#[derive(Clone, Copy)]
pub(crate) struct Shown<'a> {
    pub(crate) source: CredentialSource,
    pub(crate) credential: &'a str,
    pub(crate) remote_addr: RemoteAddr,
}

/// Where a credential was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CredentialSource {
    Bearer,
    Subprotocol,
    Certificate,
    Query,
}

/// Who is let in, and on what.
pub(crate) struct Principal {
    pub(crate) client_id: ClientId,
    /// Boxed: most sessions have none.
    pub(crate) grant: Option<Box<Grant>>,
}

/// What a session was let in on.
#[derive(Default)]
pub(crate) struct Grant {
    /// When it runs out.
    pub(crate) until: Option<Instant>,
    /// The token, when it can be withdrawn.
    pub(crate) token: Option<Digest>,
}

/// Why a device is not let in. The words go to the device and to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// It shows nothing, or not as it should.
    Missing(&'static str),
    /// What it shows is not one credential.
    Malformed(&'static str),
    /// What it shows is no credential, or none any more.
    Invalid(&'static str),
    /// What it shows is known, and not allowed.
    Forbidden(&'static str),
    /// Who would know cannot be asked now; in so many seconds, perhaps.
    Unavailable(&'static str, u32),
}

impl Auth {
    /// Decides about one device.
    ///
    /// # Errors
    /// The answer it gets, and a header line that goes with it.
    pub(crate) async fn authenticate(
        &self,
        request: &ConnectRequest,
    ) -> Result<Principal, (Refusal, Option<&'static str>)> {
        let credentials = &request.credentials;
        match self {
            Self::Open => {
                let principal = named(credentials.token.as_deref());
                principal.ok_or_else(|| (Denied::Missing(NO_TOKEN).refusal(), None))
            }
            Self::Certificate => match certified(credentials) {
                Ok(name) => named(name).ok_or_else(|| {
                    let refusal = Refusal::new(401, "a client certificate with a name is required");
                    (refusal, None)
                }),
                Err(denied) => Err((denied.refusal(), None)),
            },
            Self::Provider(provider) => {
                let principal = match shown(credentials) {
                    Ok(Some((source, credential))) => {
                        let remote_addr = request.remote_addr;
                        let shown = Shown {
                            source,
                            credential,
                            remote_addr,
                        };
                        provider.authenticate(shown).await
                    }
                    Ok(None) => Err(Denied::Missing(NO_TOKEN)),
                    Err(denied) => Err(denied),
                };
                principal.map_err(|denied| (denied.refusal(), denied.challenge()))
            }
        }
    }

    /// Whether it is the certificate that decides. A browser shows that one whichever page asks it to, so the page matters.
    pub(crate) fn is_by_certificate(&self, credentials: &Credentials) -> bool {
        match self {
            Self::Open => false,
            Self::Certificate => true,
            Self::Provider(_) => matches!(
                shown(credentials),
                Ok(Some((CredentialSource::Certificate, _)))
            ),
        }
    }

    /// Whether what a session was let in on holds still.
    pub(crate) fn holds(&self, client_id: &ClientId, grant: Option<&Grant>) -> bool {
        match (self, grant) {
            (Self::Provider(provider), Some(grant)) => provider.holds(client_id, grant),
            _ => true,
        }
    }
}

/// The credential that counts: what is meant for it before what is convenient.
///
/// # Errors
/// When something is wrong with the first one: no other decides in its stead.
fn shown(credentials: &Credentials) -> Result<Option<(CredentialSource, &str)>, Denied> {
    if let Some(fault) = credentials.faults.headers {
        return Err(Denied::Malformed(fault));
    }
    if let Some(token) = &credentials.bearer {
        return Ok(Some((CredentialSource::Bearer, token)));
    }
    if credentials.faults.is_other_scheme {
        return Err(Denied::Missing("only Authorization: Bearer is accepted"));
    }
    if let Some(token) = &credentials.subprotocol {
        return Ok(Some((CredentialSource::Subprotocol, token)));
    }
    if let Some(name) = certified(credentials)? {
        return Ok(Some((CredentialSource::Certificate, name)));
    }
    match credentials.faults.target {
        Some(fault) => Err(Denied::Malformed(fault)),
        None => Ok(credentials
            .token
            .as_deref()
            .map(|token| (CredentialSource::Query, token))),
    }
}

fn certified(credentials: &Credentials) -> Result<Option<&str>, Denied> {
    match credentials.faults.certificate {
        Some(fault) => Err(Denied::Forbidden(fault)),
        None => Ok(credentials.certificate.as_deref()),
    }
}

fn named(name: Option<&str>) -> Option<Principal> {
    name.and_then(ClientId::new).map(Principal::from)
}

impl Shown<'_> {
    /// The client id of a certificate: TLS has checked it, so there is nothing left to decide.
    pub(crate) fn certified(&self) -> Option<Result<Principal, Denied>> {
        (self.source == CredentialSource::Certificate).then(|| {
            let client_id = ClientId::new(self.credential);
            client_id
                .map(Principal::from)
                .ok_or(Denied::Missing(NO_TOKEN))
        })
    }
}

impl CredentialSource {
    /// The word for it in the webhook's request.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::Subprotocol => "subprotocol",
            Self::Certificate => "certificate",
            Self::Query => "query",
        }
    }
}

impl From<ClientId> for Principal {
    fn from(client_id: ClientId) -> Self {
        Self {
            client_id,
            grant: None,
        }
    }
}

impl Grant {
    /// One that runs out at a time of the clock; a time that no clock here will reach is none.
    pub(crate) fn until(at: SystemTime) -> Self {
        let left = at.duration_since(SystemTime::now()).unwrap_or_default();
        Self {
            until: Instant::now().checked_add(left),
            token: None,
        }
    }
}

impl Denied {
    fn refusal(self) -> Refusal {
        match self {
            Self::Missing(why) | Self::Invalid(why) => Refusal::new(401, why),
            Self::Malformed(why) => Refusal::new(400, why),
            Self::Forbidden(why) => Refusal::new(403, why),
            Self::Unavailable(why, seconds) => Refusal::new(503, why).with_retry_after(seconds),
        }
    }

    /// RFC 9110 §11.6.1 and RFC 6750 §3: a 401 says how to do better.
    fn challenge(self) -> Option<&'static str> {
        match self {
            Self::Missing(_) => Some("WWW-Authenticate: Bearer"),
            Self::Invalid(_) => Some("WWW-Authenticate: Bearer error=\"invalid_token\""),
            Self::Malformed(_) | Self::Forbidden(_) | Self::Unavailable(..) => None,
        }
    }
}

/// Whoever is between us and a plain `http` URL decides who may connect.
fn warn_of_plain_http(variable: &'static str, url: &url::Url) {
    let is_here = match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.to_canonical().is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    if url.scheme() == "http" && !is_here {
        tracing::warn!(
            variable,
            "plain http beyond loopback: anyone on the way can let devices in"
        );
    }
}

/// A NumericDate of RFC 7519 §2: seconds since 1970, with a fraction perhaps. `None` for what no clock can show.
fn unix_time(seconds: f64) -> Option<SystemTime> {
    let since = Duration::try_from_secs_f64(seconds).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(since)
}

/// The SHA-256 of a secret. Compared in constant time, and never printed.
#[derive(Clone, Copy)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    /// Of these parts, one after the other.
    pub(crate) fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    /// From 64 hexadecimal digits, of either case.
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes());
        Some(Self(bytes.ok()?.try_into().ok()?))
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Digest {}

impl std::hash::Hash for Digest {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest")
    }
}

const NO_TOKEN: &str = "a token is required";
/// When to come back to a provider that cannot be asked.
const RETRY_AFTER_S: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Faults;

    #[test]
    fn what_is_meant_for_it_comes_before_what_is_convenient() {
        let text = |text: &str| Some(text.to_owned());
        let mut credentials = Credentials {
            token: text("t"),
            bearer: text("b"),
            subprotocol: text("s"),
            certificate: text("c"),
            faults: Faults::default(),
        };
        let is = |credentials: &Credentials, source, text| {
            assert_eq!(shown(credentials), Ok(Some((source, text))));
        };
        is(&credentials, CredentialSource::Bearer, "b");
        credentials.bearer = None;
        is(&credentials, CredentialSource::Subprotocol, "s");
        credentials.subprotocol = None;
        is(&credentials, CredentialSource::Certificate, "c");
        credentials.certificate = None;
        is(&credentials, CredentialSource::Query, "t");
        assert_eq!(shown(&Credentials::default()), Ok(None));
    }

    #[test]
    fn what_is_wrong_with_one_is_not_made_good_by_a_later_one() {
        let text = |text: &str| Some(text.to_owned());
        let mut credentials = Credentials {
            token: text("t"),
            ..Credentials::default()
        };
        let mut is = |faults, expected| {
            credentials.faults = faults;
            assert_eq!(shown(&credentials), Err(expected));
        };
        let mut faults = Faults {
            target: Some("target"),
            ..Faults::default()
        };
        is(faults, Denied::Malformed("target"));
        faults.certificate = Some("certificate");
        is(faults, Denied::Forbidden("certificate"));
        faults.is_other_scheme = true;
        is(
            faults,
            Denied::Missing("only Authorization: Bearer is accepted"),
        );
        faults.headers = Some("headers");
        is(faults, Denied::Malformed("headers"));
        // But what comes before it counts.
        faults.headers = None;
        credentials.bearer = text("b");
        credentials.faults = faults;
        assert_eq!(
            shown(&credentials),
            Ok(Some((CredentialSource::Bearer, "b")))
        );
    }

    #[test]
    fn a_digest_is_that_of_fips_180() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::from_hex(abc), Some(Digest::of(&[b"a", b"bc"])));
        assert_eq!(Digest::from_hex(&abc.to_uppercase()), Digest::from_hex(abc));
        assert_eq!(Digest::from_hex(&abc[1..]), None);
        assert_eq!(Digest::from_hex(&abc[2..]), None);
    }
}
