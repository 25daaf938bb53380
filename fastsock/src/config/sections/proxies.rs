//! Proxies in front of the gateway.

use super::super::{network, section::section};

section! {
    /// Proxies in front of the gateway.
    Proxies = proxies, "Proxies in front of the gateway";
    /// Proxies that the gateway believes about the address of a device, by `FASTSOCK_PROXY_PROTOCOL` or `X-Forwarded-For`. Empty: it believes none.
    trusted_proxies => trusted: Vec<String> = Vec::new(), "FASTSOCK_TRUSTED_PROXIES", "addresses and CIDRs such as 10.0.0.0/8, separated by commas", "10.0.0.0/8,192.0.2.1", |list| list.iter().all(|text| network(text).is_some());
    /// Requires a PROXY header, version 1 or 2, from each trusted proxy, before TLS and everything else. Others must not send one.
    proxy_protocol => protocol: bool = false, "FASTSOCK_PROXY_PROTOCOL", "on or off", "on";
}
