//! Sessions and limits.

use std::time::Duration;

use super::super::{DuplicatePolicy, is_within, section::section};

section! {
    /// Sessions and limits.
    Limits = limits, "Sessions and limits";
    /// What a second session of a client id does. `replace`: it replaces the first, which is closed with 4509. `reject`: it is refused with 409. Both hold over all gateways that share a Redis; the devices of a gateway that died count as connected until its lease has ended.
    duplicate_policy => duplicate_policy: DuplicatePolicy = DuplicatePolicy::Replace, "FASTSOCK_DUPLICATE_POLICY", "replace or reject", "reject";
    /// Longest message of a device in bytes, inclusive.
    limit_message_bytes => message_bytes: usize as bytes = 1 << 20, "FASTSOCK_LIMIT_MESSAGE_BYTES", "bytes from 1 to 104857600", "64KiB", |n| (1..=100 << 20).contains(n);
    /// Longest request head in bytes.
    limit_head_bytes => head_bytes: usize as bytes = 8 << 10, "FASTSOCK_LIMIT_HEAD_BYTES", "bytes from 256 to 65536", "4KiB", |n| (256..=65_536).contains(n);
    /// Milliseconds that a device has to send its request head.
    limit_handshake_time => handshake_time: Duration = Duration::from_secs(10), "FASTSOCK_LIMIT_HANDSHAKE_TIME", "milliseconds from 100 to 600000", "5s", |d| is_within(d, 100, 600_000);
    /// Most sessions and handshakes at once. 0: the descriptor limit of the process less 64.
    limit_connections => connections: usize = 0, "FASTSOCK_LIMIT_CONNECTIONS", "an integer from 0 to 10000000", "50000", |n| *n <= 10_000_000;
    /// Most connections at once from one address; more are answered with 429. The /64 of an IPv6 address counts as one address. 0: any number.
    limit_connections_per_ip => connections_per_ip: usize = 0, "FASTSOCK_LIMIT_CONNECTIONS_PER_IP", "an integer from 0 to 10000000", "100", |n| *n <= 10_000_000;
    /// Connections that the gateway accepts per second, with one second's worth at once; the rest is answered with 503. 0: any number.
    limit_accepts => accepts: u32 = 0, "FASTSOCK_LIMIT_ACCEPTS", "an integer from 0 to 1000000", "500", |n| *n <= 1_000_000;
    /// Most handshakes at once, from the connection to the 101; more are answered with 503. 0: any number.
    limit_handshakes => handshakes: usize = 0, "FASTSOCK_LIMIT_HANDSHAKES", "an integer from 0 to 10000000", "1000", |n| *n <= 10_000_000;
    /// Messages and pings that a device may send per second, with one second's worth at once. Beyond that its messages wait; a device that stays beyond it for 30 s is closed with 4429. 0: any number.
    limit_uplinks => uplinks: u32 = 0, "FASTSOCK_LIMIT_UPLINKS", "an integer from 0 to 1000000", "50", |n| *n <= 1_000_000;
    /// Bytes of messages and pings that a device may send per second, in the same way. 0: any number.
    limit_uplink_bytes => uplink_bytes: u64 as bytes = 0, "FASTSOCK_LIMIT_UPLINK_BYTES", "bytes from 0 to 1073741824", "1MiB", |n| *n <= 1 << 30;
    /// Milliseconds for which a device may take no byte of what the gateway writes; then it is closed with 4413. The same holds for a client of the admin listener.
    write_timeout => write_timeout: Duration = Duration::from_secs(10), "FASTSOCK_WRITE_TIMEOUT", "milliseconds from 100 to 600000", "30s", |d| is_within(d, 100, 600_000);
    /// Milliseconds that a device has to answer a close frame.
    close_timeout => close_timeout: Duration = Duration::from_secs(2), "FASTSOCK_CLOSE_TIMEOUT", "milliseconds from 1 to 60000", "1s", |d| is_within(d, 1, 60_000);
    /// How long SIGTERM lets devices go one after the other, each closed with 1012, before the gateway stops. 0: it stops at once and closes all with 1001.
    drain_window => drain_window: Duration = Duration::ZERO, "FASTSOCK_DRAIN_WINDOW", "milliseconds from 0 to 3600000", "60s", |d| is_within(d, 0, 3_600_000);
    /// Most calls (`/api/v1/clients/<id>/call`) that wait for an answer at once on this gateway: those that were asked of it, and those that it makes for other gateways. 0: no calls.
    limit_calls => calls: usize = 1000, "FASTSOCK_LIMIT_CALLS", "an integer from 0 to 1000000", "100", |n| *n <= 1_000_000;
    /// Most calls that wait for an answer of one device at once. Of OCPP calls a device has one at a time.
    limit_calls_per_device => calls_per_device: usize = 16, "FASTSOCK_LIMIT_CALLS_PER_DEVICE", "an integer from 1 to 10000", "4", |n| (1..=10_000).contains(n);
    /// Milliseconds that a device has to answer a call that names no time of its own.
    call_timeout => call_timeout: Duration = Duration::from_secs(30), "FASTSOCK_CALL_TIMEOUT", "milliseconds from 1 to 600000", "10s", |d| is_within(d, 1, 600_000);
    /// Milliseconds that a hook has to answer a decision it put off.
    hook_timeout => hook_timeout: Duration = Duration::from_secs(5), "FASTSOCK_HOOK_TIMEOUT", "milliseconds from 1 to 600000", "10s", |d| is_within(d, 1, 600_000);
}
