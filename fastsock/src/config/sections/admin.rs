//! The admin listener.

use std::net::SocketAddr;

use super::super::{Secret, section::section};

section! {
    /// The admin listener.
    Admin = admin, "The admin listener";
    /// Address and port of the admin listener (health and API). Empty or `off`: none.
    admin_addr => addr: Option<SocketAddr> = None, "FASTSOCK_ADMIN_ADDR", "an address and port such as 127.0.0.1:3001, or off", "127.0.0.1:9001";
    /// Bearer token of the admin API. It is required when the admin listener is beyond loopback, and must then have at least 16 characters.
    admin_token => token: Option<Secret> = None, "FASTSOCK_ADMIN_TOKEN", "any text", "0123456789abcdef0123456789abcdef";
    /// Answers 503 on `/readyz` while the broker is away, rather than 200 with `degraded`.
    ready_requires_broker => ready_requires_broker: bool = false, "FASTSOCK_READY_REQUIRES_BROKER", "on or off", "on";
}
