//! Acknowledgements of uplinks.

use std::time::Duration;

use super::super::{is_within, section::section};

section! {
    /// Acknowledgements of uplinks.
    Ack = ack, "Acknowledgements";
    /// Lets devices ask for acknowledgements with the subprotocol `fastsock.v1.ack`.
    ack => on: bool = false, "FASTSOCK_ACK", "on or off", "on";
    /// Acknowledged uplinks per device that the gateway remembers, so that it does not take one twice when the device repeats it.
    ack_window => window: usize = 256, "FASTSOCK_ACK_WINDOW", "an integer from 1 to 4096", "1024", |n| (1..=4096).contains(n);
    /// Milliseconds for which the gateway remembers them.
    ack_time => time: Duration = Duration::from_secs(600), "FASTSOCK_ACK_TIME", "milliseconds from 1000 to 86400000", "1h", |d| is_within(d, 1000, 86_400_000);
    /// Bytes that they take together. Each counts as its id, the client id and 256 bytes. Beyond that, the gateway forgets the oldest early.
    ack_total_bytes => total_bytes: usize as bytes = 64 << 20, "FASTSOCK_ACK_TOTAL_BYTES", "bytes from 1024 to 1073741824", "16MiB", |n| (1024..=1 << 30).contains(n);
}
