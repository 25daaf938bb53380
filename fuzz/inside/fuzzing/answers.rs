//! What a backend answers, and what is asked of the admin listener.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use url::Url;

use super::halves;
#[cfg(feature = "admin")]
use crate::admin::{guard, messages};
use crate::{
    config::Config,
    forwarder,
    net::http::{Answer, Client, Target},
    tasks::Tasks,
};

/// `Retry-After` waits at most a minute. A redirect leads to an http URL without user and password, and takes secrets along
/// only to the same host and never to plain http from TLS.
pub fn backend_answer(bytes: &[u8]) {
    let (retry_after, location) = halves(bytes);
    let mut headers = HeaderMap::new();
    let fields = [
        (header::RETRY_AFTER, retry_after),
        (header::LOCATION, location),
    ];
    for (name, value) in fields {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert(name, value);
        }
    }
    let wait = forwarder::http::post::retry_after(&headers, SystemTime::UNIX_EPOCH);
    assert!(wait.is_none_or(|wait| wait <= Duration::from_secs(60)));

    let status = StatusCode::TEMPORARY_REDIRECT;
    let answer = Answer {
        status,
        headers,
        body: None,
    };
    CLIENT.with(|(_, client, targets)| {
        for from in targets {
            if let Some(to) = client.redirection(from, &answer) {
                is_a_fair_redirect(from, &to);
            }
        }
    });
}

fn is_a_fair_redirect(from: &Target, to: &Target) {
    let scheme = to.uri.scheme_str();
    assert!(matches!(scheme, Some("http" | "https")), "{scheme:?}");
    let authority = to.uri.authority().expect("a host");
    assert!(
        !authority.host().is_empty() && !authority.as_str().contains('@'),
        "{authority}"
    );
    if from.is_as_trusted(to) {
        assert_eq!(from.uri.host(), to.uri.host());
        assert!(from.uri.scheme_str() != Some("https") || scheme == Some("https"));
    }
}

thread_local! {
    /// A client that never connects, with the runtime it wants, and where it came from.
    static CLIENT: (tokio::runtime::Runtime, Client, Vec<Target>) = {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let client = Client::new((&Config::default()).into(), None, Tasks::new(runtime.handle().clone())).expect("a client");
        let urls = ["http://user:password@backend.example/in/messages?q=1", "https://backend.example:8443"];
        let targets = urls.iter().filter_map(|url| client.target(&Url::parse(url).expect("a URL"))).collect();
        (runtime, client, targets)
    };
}

/// A message for the admin API is read or refused. A Host that passes as loopback is one to a browser too.
#[cfg(feature = "admin")]
pub fn admin_message(bytes: &[u8]) {
    let (host, body) = halves(bytes);
    let _ = messages::parse(body);
    let host = String::from_utf8_lossy(host);
    if !guard::is_loopback_host(&host) {
        return;
    }
    let Ok(url) = Url::parse(&format!("http://{host}/")) else {
        return; // no browser could be led there
    };
    let is_loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.to_canonical().is_loopback(),
        None => false,
    };
    assert!(is_loopback, "{host:?}");
}
