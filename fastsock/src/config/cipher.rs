//! The cipher suites that the device port can have: those of rustls with ring.

/// Whether each is the name of one, as IANA registered it.
///
/// # Errors
/// Which is not, and why.
pub(crate) fn check(names: &[String]) -> Result<(), String> {
    let is_known = |name: &str| SUITES.contains(&name);
    let Some(unknown) = names.iter().find(|name| !is_known(name)) else {
        return Ok(());
    };
    Err(match unknown.starts_with("TLS_RSA_WITH_") {
        true => format!(
            "{unknown} is RSA key exchange, which rustls does not have; a TLS proxy in front of the gateway can (docs/proxies.md)"
        ),
        false => format!("rustls has no cipher suite {unknown:?}"),
    })
}

/// Those of TLS 1.3, then those of 1.2.
pub(crate) const SUITES: [&str; 9] = [
    "TLS_AES_256_GCM_SHA384",
    "TLS_AES_128_GCM_SHA256",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

#[cfg(test)]
mod tests {
    #[test]
    fn what_rustls_does_not_have_is_refused_with_a_way_out() {
        let check = |name: &str| super::check(&[name.to_owned()]);
        assert_eq!(check("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"), Ok(()));
        let rsa = check("TLS_RSA_WITH_AES_128_GCM_SHA256").unwrap_err();
        assert!(rsa.contains("a TLS proxy in front"), "{rsa}");
        let unknown = check("ECDHE-RSA-AES128-SHA").unwrap_err();
        assert_eq!(
            unknown,
            "rustls has no cipher suite \"ECDHE-RSA-AES128-SHA\""
        );
    }
}
