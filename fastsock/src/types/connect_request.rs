//! The head of a device's request, the credentials in it, and the answer that refuses it.

use std::{borrow::Cow, fmt};

use super::client::ClientId;
use crate::{
    context::{CertificateNames, Parts},
    remote_addr::RemoteAddr,
};

/// The head of a device's WebSocket request. `Debug` prints neither its target nor the values of its headers.
#[derive(Clone)]
#[non_exhaustive]
pub struct ConnectRequest {
    /// The request target as sent, path and query. May hold a token: do not log it.
    pub target: String,
    /// Header names (lower case) and values in the order sent; values that are not UTF-8 are lossy.
    pub headers: Vec<(String, String)>,
    /// The address of the device; what trusted proxies say, if there are any.
    pub remote_addr: RemoteAddr,
    /// The credentials that the device shows.
    pub credentials: Credentials,
    /// The named parts of its path, by `device_paths`; `id` is one of them. Nobody has confirmed them yet.
    pub parts: Parts,
    /// The client id that these parts form. Whoever lets the device in has to name the same one.
    pub client_id: Option<ClientId>,
    /// The name of its route, unless it is the default one.
    pub route: Option<String>,
    /// The subprotocols that the device offers, in its order, without `fastsock-token.<token>`.
    pub subprotocols: Vec<String>,
    /// The names in a client certificate that TLS has checked.
    pub certificate_names: Option<Box<CertificateNames>>,
}

impl ConnectRequest {
    /// The method of the request: always `GET`.
    pub fn method(&self) -> &'static str {
        "GET"
    }

    /// The path as sent, without the query. May hold a token (`/token=…`): do not log it.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The path without a token that it may hold.
    pub(crate) fn shown_path(&self) -> &str {
        let path = self.path();
        let form = path.strip_prefix('/').unwrap_or(path).as_bytes();
        let has_token = form_urlencoded::parse(form).any(|(name, _)| name == "token");
        if has_token { "/***" } else { path }
    }

    /// The query as sent; empty when there is none. May hold a token: do not log it.
    pub fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// The query, with `***` for a token in it.
    pub(crate) fn shown_query(&self) -> Cow<'_, str> {
        let is_token = |field: &str| {
            let mut fields = form_urlencoded::parse(field.as_bytes());
            fields.any(|(name, _)| name == "token")
        };
        let query = self.query();
        if !is_token(query) {
            return query.into();
        }
        let shown = query.split('&').map(|field| match is_token(field) {
            true => "token=***",
            false => field,
        });
        shown.collect::<Vec<_>>().join("&").into()
    }

    /// All values of a header, by its lower-case name, in the order sent.
    pub fn headers_named(&self, name: &str) -> impl DoubleEndedIterator<Item = &str> {
        let named = self.headers.iter().filter(move |(n, _)| n == name);
        named.map(|(_, value)| value.as_str())
    }

    /// The first value of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
}

impl fmt::Debug for ConnectRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("ConnectRequest")
            .field("headers", &names)
            .field("remote_addr", &self.remote_addr)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

/// The credentials that a device shows. `Debug` does not print them.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credentials {
    /// The `token` of the request target, decoded as a form is. `None` when missing or empty.
    pub token: Option<String>,
    /// `Authorization: Bearer …`, without the scheme.
    pub bearer: Option<String>,
    /// `Authorization: Basic …`: a user and a password.
    pub basic: Option<Box<Basic>>,
    /// The token of a `fastsock-token.<token>` subprotocol.
    pub subprotocol: Option<String>,
    /// The name in a client certificate that TLS has checked. Not a secret. `None` also when the certificate has no name, or an
    /// ambiguous one.
    pub certificate: Option<String>,
    pub(crate) faults: Faults,
}

/// What `Authorization: Basic` holds (RFC 7617). `Debug` does not print the password.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Basic {
    /// What stands before the first colon; never empty.
    pub user: String,
    /// What stands behind it: bytes, since the passwords of OCPP 1.6 need not be UTF-8.
    pub password: Vec<u8>,
}

impl Basic {
    pub(crate) fn new(user: impl Into<String>, password: impl Into<Vec<u8>>) -> Self {
        Self {
            user: user.into(),
            password: password.into(),
        }
    }
}

impl fmt::Debug for Basic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Basic")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// What is wrong with a credential that is shown: it counts as shown, so that nothing in a later place decides in its stead.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// `Authorization` or the subprotocols hold two where one counts, an empty one, or what is no text.
    pub(crate) headers: Option<&'static str>,
    /// `Authorization` has a scheme that nobody knows.
    pub(crate) is_other_scheme: bool,
    /// Nobody can be sure of the name in the certificate.
    pub(crate) certificate: Option<&'static str>,
    /// There are several tokens in the request target.
    pub(crate) target: Option<&'static str>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |o: &Option<String>| o.as_ref().map(|_| "***");
        f.debug_struct("Credentials")
            .field("token", &shown(&self.token))
            .field("bearer", &shown(&self.bearer))
            .field("basic", &self.basic)
            .field("subprotocol", &shown(&self.subprotocol))
            .field("certificate", &self.certificate)
            .finish()
    }
}

/// The HTTP answer with which the bridge refuses a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status, 400 to 599.
    pub status: u16,
    /// The body; short and free of secrets.
    pub reason: String,
    /// Seconds for a `Retry-After` header.
    pub retry_after_s: Option<u32>,
}

impl Refusal {
    /// A refusal with a status and a short reason. A status outside 400 to 599 becomes 403.
    pub fn new(status: u16, reason: impl Into<String>) -> Self {
        let status = if (400..600).contains(&status) {
            status
        } else {
            403
        };
        Self {
            status,
            reason: reason.into(),
            retry_after_s: None,
        }
    }

    /// The same, with a `Retry-After` for the device.
    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_shows_is_not_printed() {
        let secret = || Some("s3cret".to_owned());
        let request = ConnectRequest {
            target: "/?token=s3cret".into(),
            headers: vec![("authorization".into(), "Bearer s3cret".into())],
            remote_addr: std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into(),
            credentials: Credentials {
                token: secret(),
                bearer: secret(),
                basic: Some(Box::new(Basic::new("dev1", "s3cret"))),
                subprotocol: secret(),
                certificate: Some("dev1".into()),
                faults: Faults::default(),
            },
            parts: Parts::default(),
            client_id: None,
            route: None,
            subprotocols: Vec::new(),
            certificate_names: None,
        };
        let printed = format!("{request:?}");
        assert!(!printed.contains("s3cret") && printed.contains("authorization"));
    }
}
