//! Where devices connect.

use std::{net::IpAddr, time::Duration};

use super::super::{origin, section::section};

section! {
    /// Where devices connect.
    Listen = listen, "Devices connect";
    /// Port that devices connect to. 0 picks a free port; `local_addr` tells which.
    websocket_port => port: u16 = 3000, "WEBSOCKET_PORT", "a port from 0 to 65535", "4000";
    /// Milliseconds between pings to a device. The gateway cuts a device that shows no sign of life by its next ping. 0 turns the heartbeat off.
    websocket_ping_interval => ping_interval: Duration = Duration::from_secs(30), "WEBSOCKET_PING_INTERVAL", "milliseconds from 0 to 86400000", "60000", |d| d.as_millis() <= 86_400_000;
    /// Address to listen on. Empty means all addresses, IPv6 and IPv4 (`::`), or IPv4 alone where there is no IPv6.
    listen_addr => addr: Option<IpAddr> = None, "FASTSOCK_LISTEN_ADDR", "an IP address, or empty for all", "127.0.0.1";
    /// Lets several processes share the port (SO_REUSEPORT). While it is off, a taken port is an error.
    listen_reuseport => reuseport: bool = false, "FASTSOCK_LISTEN_REUSEPORT", "on or off", "on";
    /// Takes only requests of HTTP/1.1 with a `Host`, as RFC 9112 has them. While it is off, HTTP/1.0 and a missing `Host` are taken too, as the original took them: from old firmware, and from an nginx without `proxy_http_version 1.1`.
    strict_handshake => strict_handshake: bool = false, "FASTSOCK_STRICT_HANDSHAKE", "on or off", "on";
    /// Origins that browsers may connect from. Empty allows every origin; where a client certificate decides who a device is, empty allows pages of the same host only. A request without an Origin is always allowed.
    listen_origins => origins: Vec<String> = Vec::new(), "FASTSOCK_LISTEN_ORIGINS", "origins such as https://example.com or https://*.example.com, separated by commas", "https://example.com,https://*.example.com", |list| list.iter().try_for_each(|text| origin::Origin::parse(text).map(drop));
}
