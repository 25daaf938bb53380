//! Origins of web pages (RFC 6454): those that `listen_origins` allows, and the one in a request.

use url::Url;

/// An origin, or with a first label `*` all those below a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    scheme: String,
    host: String,
    /// `None` is that of the scheme.
    port: Option<u16>,
    is_wildcard: bool,
}

impl Origin {
    /// Reads one by the rules for URLs: the case of letters, the port of the scheme and a slash at the end make no difference.
    ///
    /// # Errors
    /// Why it is none, for a line that goes on.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let fail = |why: &str| Err(format!("{text:?} {why}"));
        if text == "null" {
            return Ok(Self::new("null", "", None));
        }
        let Some((scheme, _)) = text.split_once("://") else {
            return fail("has no scheme");
        };
        if text == "file://" {
            return Ok(Self::new("file", "", None));
        }
        if matches!(scheme.to_ascii_lowercase().as_str(), "ws" | "wss") {
            return fail("is not the origin of a page; give the scheme of the page");
        }
        let Ok(url) = Url::parse(text) else {
            return fail("is no origin");
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err("an origin has no user".into());
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return fail("has more than a scheme, a host and a port");
        }
        let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
            return fail("has no host");
        };
        let host = host.to_ascii_lowercase();
        let (is_wildcard, host) = match host.strip_prefix("*.") {
            Some(domain) => (true, domain),
            None => (false, &*host),
        };
        let is_address = || host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok();
        if host.is_empty() || host.contains('*') || (is_wildcard && is_address()) {
            return fail("can never match: * stands for the first names of a domain only");
        }
        Ok(Self {
            is_wildcard,
            ..Self::new(url.scheme(), host, url.port())
        })
    }

    fn new(scheme: &str, host: &str, port: Option<u16>) -> Self {
        Self {
            scheme: scheme.into(),
            host: host.into(),
            port,
            is_wildcard: false,
        }
    }

    /// Whether it allows the one of a request.
    pub(crate) fn allows(&self, origin: &Self) -> bool {
        let is_below = || {
            let labels = origin.host.strip_suffix(&*self.host);
            labels.is_some_and(|labels| labels.len() > 1 && labels.ends_with('.'))
        };
        (&self.scheme, self.port) == (&origin.scheme, origin.port)
            && match self.is_wildcard {
                true => is_below(),
                false => self.host == origin.host && !origin.is_wildcard,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_allows_the_origins_it_means() {
        for (entry, allowed, others) in [
            (
                "HTTPS://App.Example.com:443/",
                &["https://app.example.com", "https://app.example.com:443"][..],
                &[
                    "http://app.example.com",
                    "https://app.example.com:8443",
                    "https://example.com",
                    "https://x.app.example.com",
                    "null",
                ][..],
            ),
            (
                "https://*.example.com",
                &["https://a.example.com", "https://a.b.example.com"],
                &[
                    "https://example.com",
                    "https://evil-example.com",
                    "https://a.example.com.evil.net",
                    "http://a.example.com",
                    "https://a.example.com:444",
                ],
            ),
            (
                "http://*.example.com:8080",
                &["http://a.example.com:8080"],
                &["http://a.example.com"],
            ),
            (
                "https://bücher.example",
                &["https://xn--bcher-kva.example"],
                &["https://bucher.example"],
            ),
            (
                "http://[::1]:3000",
                &["http://[::1]:3000"],
                &["http://[::2]:3000"],
            ),
            ("null", &["null"], &["https://null", "file://"]),
            ("file://", &["file://"], &["null"]),
            (
                "chrome-extension://abcdef",
                &["chrome-extension://abcdef"],
                &["chrome-extension://abcdeg", "https://abcdef"],
            ),
        ] {
            let entry = Origin::parse(entry).unwrap();
            for origin in allowed {
                assert!(entry.allows(&Origin::parse(origin).unwrap()), "{origin}");
            }
            for origin in others {
                assert!(!entry.allows(&Origin::parse(origin).unwrap()), "{origin}");
            }
        }
    }

    #[test]
    fn what_can_never_match_is_refused() {
        for text in [
            "*",
            "example.com",
            "localhost:3000",
            "https://",
            "https://example.com/app",
            "https://example.com?x",
            "https://example.com#x",
            "https://u:p@example.com",
            "wss://example.com",
            "https://example.com:*",
            "https://*",
            "https://a.*.com",
            "https://*.*.com",
            "https://a*.example.com",
            "https://*.127.0.0.1",
            "https://exa mple.com",
        ] {
            let why = Origin::parse(text).unwrap_err();
            assert!(!why.contains("u:p"), "{why}");
        }
    }
}
