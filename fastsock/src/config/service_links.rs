//! Variables that Kubernetes gives each container for each service of its namespace ("service links").

/// Whether a variable has the shape of a service link. A service called `fastsock`, `redis` or `fastsock-auth` makes some that
/// look like settings: `FASTSOCK_PORT=tcp://10.0.0.1:80`, `REDIS_PORT=tcp://…`, `FASTSOCK_AUTH_SERVICE_HOST`.
pub(super) fn is_service_link(name: &str, value: &str) -> bool {
    let is_address = || name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT");
    let is_named_port = || name.contains("_SERVICE_PORT_");
    let is_url = || {
        let scheme = value
            .split_once("://")
            .map(|(scheme, _)| scheme.to_ascii_uppercase());
        name.ends_with("_PORT") && scheme.is_some_and(|scheme| PROTOCOLS.contains(&&*scheme))
    };
    let is_part = || {
        let (_, rest) = name.rsplit_once("_PORT_")?;
        let mut words = rest.splitn(3, '_');
        words.next()?.parse::<u16>().ok()?;
        let is_protocol = PROTOCOLS.contains(&words.next()?);
        let part = words
            .next()
            .is_none_or(|part| matches!(part, "PROTO" | "PORT" | "ADDR"));
        Some(is_protocol && part)
    };
    is_address() || is_named_port() || is_url() || is_part().unwrap_or(false)
}

const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_links_are_known_by_name_and_value() {
        for (name, value) in [
            ("FASTSOCK_PORT", "tcp://10.0.0.1:80"),
            ("FASTSOCK_AUTH_PORT", "udp://[fd00::1]:53"),
            ("REDIS_PORT", "tcp://10.0.0.1:6379"),
            ("WEBSOCKET_PORT", "sctp://10.0.0.1:3000"),
            ("FASTSOCK_SERVICE_HOST", "10.0.0.1"),
            ("FASTSOCK_SERVICE_PORT", "80"),
            ("FASTSOCK_AUTH_SERVICE_PORT_HTTP_ADMIN", "80"),
            ("FASTSOCK_AUTH_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("FASTSOCK_AUTH_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("FASTSOCK_AUTH_PORT_80_TCP_PORT", "80"),
            ("FASTSOCK_AUTH_PORT_53_UDP_PROTO", "udp"),
        ] {
            assert!(is_service_link(name, value), "{name}={value}");
        }
        for (name, value) in [
            ("WEBSOCKET_PORT", "3000"),
            ("REDIS_PORT", "x"),
            ("REDIS_PORT", "http://h"),
            ("FASTSOCK_AUTH", "jwt"),
            ("FASTSOCK_AUTH_PORT", ""),
            ("FASTSOCK_AUTH_PORT_X_TCP", "x"),
            ("FASTSOCK_AUTH_PORT_80_ICMP", "x"),
            ("FASTSOCK_AUTH_PORT_80_TCP_KEY", "x"),
            ("FASTSOCK_AUTH_SERVICE_KEY", "x"),
            ("FASTSOCK_REMOTE_URL", "tcp://10.0.0.1:80"),
        ] {
            assert!(!is_service_link(name, value), "{name}={value}");
        }
    }
}
