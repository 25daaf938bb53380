//! Names of a device's headers that go on to a backend.

/// Names that may be in such a list: headers of the device alone.
///
/// # Errors
/// Which one is none, and why.
pub(crate) fn check_forwarded(list: &[String], others: &[&str]) -> Result<(), String> {
    for (index, name) in list.iter().enumerate() {
        let lower = name.to_ascii_lowercase();
        let is_ours = REFUSED.contains(&&*lower) || others.contains(&&*lower);
        let why = if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            "is not the name of a header"
        } else if is_ours || REFUSED_PREFIXES.iter().any(|p| lower.starts_with(p)) {
            "is not a header to forward: it belongs to the connection, to the body, or to the gateway"
        } else if list[..index].iter().any(|n| n.eq_ignore_ascii_case(name)) {
            "is there twice"
        } else {
            continue;
        };
        return Err(format!("{name:?} {why}"));
    }
    Ok(())
}

/// Hop by hop (RFC 9110 §7.6.1), framing, and what gives a POST its identity.
const REFUSED: &[&str] = &[
    "connection",
    "expect",
    "host",
    "idempotency-key",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
const REFUSED_PREFIXES: &[&str] = &[
    "ce-",
    "content-",
    "proxy-",
    "sec-websocket-",
    "webhook-",
    "x-fastsock-",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_headers_of_the_device_itself_are_forwarded() {
        let check = |name: &str, others: &[&str]| check_forwarded(&[name.to_owned()], others);
        for name in [
            "User-Agent",
            "X-Serial",
            "Authorization",
            "cookie",
            "traceparent",
        ] {
            assert_eq!(check(name, &[]), Ok(()), "{name}");
        }
        for name in REFUSED.iter().copied().chain([
            "Transfer-Encoding",
            "CONTENT-LENGTH",
            "Content-Type",
            "Proxy-Authorization",
            "X-Fastsock-Client-Id",
            "webhook-signature",
            "Sec-WebSocket-Key",
            "ce-id",
            "a b",
            "a:",
            "",
        ]) {
            assert!(check(name, &[]).is_err(), "{name}");
        }
        assert!(check("Cookie", &["authorization", "cookie"]).is_err());
        assert!(check_forwarded(&["a".into(), "A".into()], &[]).is_err());
    }
}
