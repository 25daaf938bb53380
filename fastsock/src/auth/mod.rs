//! The port to who may connect: what a device shows, and what comes of it.

#[cfg(feature = "jwt")]
pub(crate) mod jwt;
pub(crate) mod passwords;
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
    context::Metadata,
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

    /// Somebody says that the files it reads have changed and are complete.
    fn reload(&self) {}

    /// Whether it knows what to do with a user and a password.
    fn takes_passwords(&self) -> bool {
        false
    }

    /// Whether it may say which subprotocol a device speaks.
    fn chooses_subprotocols(&self) -> bool {
        false
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

/// What one device shows, and in which request.
#[derive(Clone, Copy)]
pub(crate) struct Shown<'a> {
    pub(crate) source: CredentialSource,
    /// The token, the name in the certificate, or the user to whom the password belongs.
    pub(crate) credential: &'a str,
    pub(crate) password: Option<&'a [u8]>,
    pub(crate) request: &'a ConnectRequest,
}

/// Where a credential was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CredentialSource {
    Bearer,
    Basic,
    Subprotocol,
    Certificate,
    Query,
}

/// Who is let in, on what, and what goes with it.
pub(crate) struct Principal {
    pub(crate) client_id: ClientId,
    /// Boxed: most sessions have none.
    pub(crate) grant: Option<Box<Grant>>,
    pub(crate) profile: Option<Box<Profile>>,
}

/// What whoever lets a device in says of it beside its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) groups: Vec<String>,
    pub(crate) subprotocol: Option<String>,
    pub(crate) metadata: Option<Metadata>,
}

/// What a session was let in on.
#[derive(Default)]
pub(crate) struct Grant {
    /// When it runs out.
    pub(crate) until: Option<Instant>,
    /// The token, when it can be withdrawn.
    pub(crate) token: Option<Digest>,
    /// The number of who has granted it: each route may have its own.
    pub(crate) auth: usize,
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
    /// Who was asked wants it to get this status.
    Refused(u16),
    /// Who would know cannot be asked now; in so many seconds, perhaps.
    Unavailable(&'static str, u32),
}

impl Auth {
    /// Has it look at its files soon, without waiting until they rest.
    pub(crate) fn reload(&self) {
        if let Self::Provider(provider) = self {
            provider.reload();
        }
    }

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
                let principal = match &request.client_id {
                    Some(client_id) => Some(client_id.clone().into()),
                    None => named(credentials.token.as_deref()),
                };
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
                let takes_passwords = provider.takes_passwords();
                let principal = match shown(credentials) {
                    Ok(Some((CredentialSource::Basic, _))) if !takes_passwords => {
                        Err(Denied::Missing(ONLY_BEARER))
                    }
                    Ok(Some((source, credential))) => {
                        let basic = credentials.basic.as_ref();
                        let shown = Shown {
                            source,
                            credential,
                            password: basic
                                .filter(|_| source == CredentialSource::Basic)
                                .map(|basic| &*basic.password),
                            request,
                        };
                        provider.authenticate(shown).await
                    }
                    Ok(None) => Err(Denied::Missing(NO_TOKEN)),
                    Err(Denied::Missing(ONLY_BEARER)) if takes_passwords => {
                        Err(Denied::Missing(BEARER_OR_BASIC))
                    }
                    Err(denied) => Err(denied),
                };
                let has_basic = credentials.basic.is_some();
                principal.map_err(|denied| {
                    let challenge = denied.challenge(takes_passwords, has_basic);
                    (denied.refusal(), challenge)
                })
            }
        }
    }

    /// Whether a certificate or a password decides. A browser shows those whichever page asks it to, so the page matters.
    pub(crate) fn is_replayed_by_browsers(&self, credentials: &Credentials) -> bool {
        use CredentialSource::{Basic, Certificate};
        match self {
            Self::Open => false,
            Self::Certificate => true,
            Self::Provider(_) => {
                matches!(shown(credentials), Ok(Some((Basic | Certificate, _))))
            }
        }
    }

    /// Whether it knows what to do with a user and a password.
    pub(crate) fn takes_passwords(&self) -> bool {
        match self {
            Self::Open | Self::Certificate => false,
            Self::Provider(provider) => provider.takes_passwords(),
        }
    }

    /// Whether it may say which subprotocol a device speaks.
    pub(crate) fn chooses_subprotocols(&self) -> bool {
        matches!(self, Self::Provider(provider) if provider.chooses_subprotocols())
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
    if let Some(basic) = &credentials.basic {
        return Ok(Some((CredentialSource::Basic, &basic.user)));
    }
    if credentials.faults.is_other_scheme {
        return Err(Denied::Missing(ONLY_BEARER));
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

    /// The client id that goes with a user: the one that the path forms, since its `id` is the user; else the user itself.
    pub(crate) fn client_id_of_user(&self) -> Option<ClientId> {
        self.password?;
        let of_path = self.request.client_id.clone();
        of_path.or_else(|| ClientId::new(self.credential))
    }
}

impl CredentialSource {
    /// The word for it in the webhook's request.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::Basic => "basic",
            Self::Subprotocol => "subprotocol",
            Self::Certificate => "certificate",
            Self::Query => "query",
        }
    }
}

impl Profile {
    /// Itself; `None` when it says nothing.
    ///
    /// # Errors
    /// What is wrong with it, for the log.
    pub(crate) fn checked(self) -> Result<Option<Box<Self>>, String> {
        let is_bad = |group: &&String| {
            group.is_empty() || group.len() > MOST_GROUP_BYTES || group.contains(char::is_control)
        };
        if self.groups.len() > MOST_GROUPS || self.groups.iter().find(is_bad).is_some() {
            return Err(format!(
                "groups are at most {MOST_GROUPS} names of 1 to {MOST_GROUP_BYTES} bytes without control characters"
            ));
        }
        Ok((self != Self::default()).then(|| Box::new(self)))
    }
}

impl From<ClientId> for Principal {
    fn from(client_id: ClientId) -> Self {
        Self {
            client_id,
            grant: None,
            profile: None,
        }
    }
}

impl Grant {
    /// One that runs out at a time of the clock; a time that no clock here will reach is none.
    pub(crate) fn until(at: SystemTime) -> Self {
        let left = at.duration_since(SystemTime::now()).unwrap_or_default();
        Self {
            until: Instant::now().checked_add(left),
            ..Self::default()
        }
    }
}

impl Denied {
    fn refusal(self) -> Refusal {
        match self {
            Self::Missing(why) | Self::Invalid(why) => Refusal::new(401, why),
            Self::Malformed(why) => Refusal::new(400, why),
            Self::Forbidden(why) => Refusal::new(403, why),
            Self::Refused(404) => Refusal::new(404, "unknown device"),
            Self::Refused(status) => Refusal::new(status, "not allowed"),
            Self::Unavailable(why, seconds) => Refusal::new(503, why).with_retry_after(seconds),
        }
    }

    /// RFC 9110 §11.6.1, RFC 6750 §3 and RFC 7617 §2: a 401 says how to do better.
    fn challenge(self, takes_passwords: bool, has_basic: bool) -> Option<&'static str> {
        const BEARER: &str = "WWW-Authenticate: Bearer";
        const INVALID: &str = "WWW-Authenticate: Bearer error=\"invalid_token\"";
        const BOTH: &str = "WWW-Authenticate: Bearer\r\nWWW-Authenticate: Basic realm=\"fastsock\"";
        const BOTH_INVALID: &str = "WWW-Authenticate: Bearer error=\"invalid_token\"\r\nWWW-Authenticate: Basic realm=\"fastsock\"";
        let is_token_wrong = match self {
            Self::Missing(_) | Self::Refused(401) => false,
            Self::Invalid(_) => !has_basic,
            _ => return None,
        };
        Some(match (takes_passwords, is_token_wrong) {
            (false, false) => BEARER,
            (false, true) => INVALID,
            (true, false) => BOTH,
            (true, true) => BOTH_INVALID,
        })
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

/// Groups of one session, and the bytes of a name of one.
const MOST_GROUPS: usize = 64;
const MOST_GROUP_BYTES: usize = 256;
const ONLY_BEARER: &str = "only Authorization: Bearer is accepted";
const BEARER_OR_BASIC: &str = "only Authorization: Bearer and Basic are accepted";
const NO_TOKEN: &str = "a token is required";
/// When to come back to a provider that cannot be asked.
const RETRY_AFTER_S: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Basic, Faults};

    #[test]
    fn what_is_meant_for_it_comes_before_what_is_convenient() {
        let text = |text: &str| Some(text.to_owned());
        let mut credentials = Credentials {
            token: text("t"),
            bearer: text("b"),
            basic: Some(Box::new(Basic::new("u", "p"))),
            subprotocol: text("s"),
            certificate: text("c"),
            faults: Faults::default(),
        };
        let is = |credentials: &Credentials, source, text| {
            assert_eq!(shown(credentials), Ok(Some((source, text))));
        };
        is(&credentials, CredentialSource::Bearer, "b");
        credentials.bearer = None;
        is(&credentials, CredentialSource::Basic, "u");
        credentials.basic = None;
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
