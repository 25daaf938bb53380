//! Who may use the admin listener: no page in a browser, and beyond loopback nobody without the token.

use hyper::{Request, StatusCode};

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
        let host = request
            .headers()
            .get(http::header::HOST)
            .and_then(|h| h.to_str().ok())
            .unwrap_or_default();
        if self.is_loopback && !is_loopback_host(host) {
            return Err(problem(
                StatusCode::FORBIDDEN,
                "the Host must be a loopback address or localhost",
            ));
        }
        Ok(())
    }

    /// A configured token is required, whoever asks.
    pub(super) fn check_token<B>(&self, request: &Request<B>) -> Result<(), Answer> {
        match &self.token {
            Some(token) if !is_bearer(request, token.expose()) => {
                let mut refused = problem(
                    StatusCode::UNAUTHORIZED,
                    "the bearer token of FASTSOCK_ADMIN_TOKEN is required",
                );
                refused.headers_mut().insert(
                    http::header::WWW_AUTHENTICATE,
                    http::HeaderValue::from_static("Bearer"),
                );
                Err(refused)
            }
            _ => Ok(()),
        }
    }

    /// The media type of a state-changing call. The types a page can send without asking first get 415: no form forges one.
    pub(super) fn media_type<B>(&self, request: &Request<B>) -> Result<MediaType, Answer> {
        let value = request
            .headers()
            .get(http::header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        match value
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

fn is_bearer<B>(request: &Request<B>, token: &str) -> bool {
    let shown = request
        .headers()
        .get(http::header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let Some((scheme, shown)) = shown.and_then(|value| value.split_once(' ')) else {
        return false;
    };
    scheme.eq_ignore_ascii_case("bearer") && is_equal(shown.trim().as_bytes(), token.as_bytes())
}

/// Compares without telling by its time where the difference is.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    use subtle::ConstantTimeEq;
    a.ct_eq(b).into()
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
            .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
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
        ] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }
}
