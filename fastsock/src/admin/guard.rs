//! Who may use the admin listener: no page in a browser, and beyond loopback nobody without the token.

use http::{
    HeaderName, HeaderValue, Method, Version,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, WWW_AUTHENTICATE},
};
use hyper::{Request, StatusCode};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Answer, problem};
use crate::config::Secret;

/// The rules of one admin listener.
pub(super) struct Guard {
    is_loopback: bool,
    token: Option<Secret>,
}

impl Guard {
    pub(super) fn new(is_loopback: bool, token: Option<Secret>) -> Self {
        Self { is_loopback, token }
    }

    /// On loopback the Host must be loopback too, or a page could reach us by a name that it makes resolve here.
    pub(super) fn check_host<B>(&self, request: &Request<B>) -> Result<(), Answer> {
        let Ok(host) = only(request, HOST) else {
            return Err(problem(StatusCode::BAD_REQUEST, "only one Host is allowed"));
        };
        // Of a target such as `http://name/healthz` the name counts, and no Host makes it good (RFC 9112 §3.2.2).
        let authority = request.uri().authority().map(http::uri::Authority::as_str);
        // A probe by HTTP/1.0 knows no Host, and a page always sends one; what it may ask, anyone may know.
        let is_probe = request.version() == Version::HTTP_10
            && matches!(request.method(), &Method::GET | &Method::HEAD)
            && matches!(request.uri().path(), "/healthz" | "/readyz");
        let no_host = (!is_probe).then_some("");
        let names = [host.or(no_host), authority];
        if self.is_loopback && !names.into_iter().flatten().all(is_loopback_host) {
            return Err(problem(
                StatusCode::FORBIDDEN,
                "the Host must be a loopback address or localhost",
            ));
        }
        Ok(())
    }

    /// A configured token is required, whoever asks.
    pub(super) fn check_token<B>(&self, request: &Request<B>) -> Result<(), Answer> {
        if only(request, AUTHORIZATION).is_err() {
            let text = "only one Authorization is allowed";
            return Err(problem(StatusCode::BAD_REQUEST, text));
        }
        if self.token.is_none() || self.has_token(request) {
            return Ok(());
        }
        let mut refused = problem(
            StatusCode::UNAUTHORIZED,
            "the bearer token of FASTSOCK_ADMIN_TOKEN is required",
        );
        refused
            .headers_mut()
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        Err(refused)
    }

    /// Whether there is a token and it is shown.
    pub(super) fn has_token<B>(&self, request: &Request<B>) -> bool {
        let Some(token) = &self.token else {
            return false;
        };
        let shown = only(request, AUTHORIZATION).ok().flatten();
        shown
            .and_then(|value| value.split_once(' '))
            .is_some_and(|(scheme, shown)| {
                scheme.eq_ignore_ascii_case("bearer") && is_equal(shown.trim(), token.expose())
            })
    }

    /// The media type of a state-changing call. The types a page can send without asking first get 415: no form forges one.
    pub(super) fn media_type<B>(&self, request: &Request<B>) -> Result<MediaType, Answer> {
        let value = only(request, CONTENT_TYPE).ok().flatten();
        match value
            .unwrap_or_default()
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase()
            .as_str()
        {
            "application/json" => Ok(MediaType::Json),
            "application/octet-stream" => Ok(MediaType::Raw),
            _ => Err(problem(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the Content-Type must be application/json or application/octet-stream",
            )),
        }
    }
}

/// How the body of a call is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MediaType {
    Json,
    Raw,
}

/// The value of a header, if it is there once; what is no text counts as empty.
///
/// # Errors
/// It is there more than once.
fn only<B>(request: &Request<B>, name: HeaderName) -> Result<Option<&str>, ()> {
    let mut values = request.headers().get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(()),
        (value, None) => Ok(value.map(|value| value.to_str().unwrap_or_default())),
    }
}

/// Compares without telling by its time where the difference is, or how long the token is.
fn is_equal(a: &str, b: &str) -> bool {
    let [a, b] = [a, b].map(Sha256::digest);
    a.ct_eq(&b).into()
}

pub(crate) fn is_loopback_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').unwrap_or_default(),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
        return false;
    }
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse()
            .is_ok_and(|ip: std::net::IpAddr| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_hosts_are_loopback() {
        for host in [
            "localhost",
            "LocalHost:3001",
            "127.0.0.1",
            "127.9.9.9:1",
            "[::1]",
            "[::1]:3001",
            "[::ffff:127.0.0.1]:3001",
            "[::ffff:7f00:1]",
        ] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1:80@evil.example",
            "[::1]evil.example",
            "[::1",
            "localhost.evil.example:3001",
            "10.0.0.1",
            "[::2]",
            "[::ffff:10.0.0.1]",
            "localhost:80@evil.example",
            "localhost, evil.example",
            "localhost:8a",
        ] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }
}
